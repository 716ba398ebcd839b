"""Turn a self-supervised image teacher into a smaller or better student.

Train a student, load a model, embed images::

    import ssl_transfer

    run = ssl_transfer.distill(teacher="timm:resnet18", student="mobilenetv3_small_100", data="photos/", epochs=100)
    embeddings = run.model.embed("photos/")

Light on purpose: importing the package loads neither torch nor timm; these names do when they are used. Import all else
from its parts::

    from ssl_transfer.losses import relaxed_contrastive
    from ssl_transfer.models import create_backbone
    from ssl_transfer.probes import knn_accuracy
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_transfer._version import __version__ as __version__

if TYPE_CHECKING:
    from ssl_transfer.distilling import Run as Run
    from ssl_transfer.distilling import distill as distill
    from ssl_transfer.embeddings.embedder import Embedder as Embedder
    from ssl_transfer.embeddings.embedder import load as load
    from ssl_transfer.embeddings.table import Embeddings as Embeddings
    from ssl_transfer.embeddings.table import read_embeddings as read_embeddings

_WHERE = {
    "Run": "distilling",
    "distill": "distilling",
    "Embedder": "embeddings.embedder",
    "Embeddings": "embeddings.table",
    "load": "embeddings.embedder",
    "read_embeddings": "embeddings.table",
}
__all__ = ["Embedder", "Embeddings", "Run", "__version__", "distill", "load", "read_embeddings"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
