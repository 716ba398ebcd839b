"""Students and teachers: timm backbones that own their preprocessing, heads, frozen and averaged copies.

Names are imported on first use, so that ``import ssl_transfer`` loads neither torch nor timm.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_transfer.models.backbones import Backbone as Backbone
    from ssl_transfer.models.backbones import Preprocessing as Preprocessing
    from ssl_transfer.models.backbones import create_backbone as create_backbone
    from ssl_transfer.models.ema import AveragedModel as AveragedModel
    from ssl_transfer.models.ema import MomentumEncoder as MomentumEncoder
    from ssl_transfer.models.embedding import EmbeddingModel as EmbeddingModel
    from ssl_transfer.models.embedding import FeatureMaps as FeatureMaps
    from ssl_transfer.models.embedding import Output as Output
    from ssl_transfer.models.embedding import WithLogits as WithLogits
    from ssl_transfer.models.foreign.loading import load_foreign as load_foreign
    from ssl_transfer.models.frozen import Frozen as Frozen
    from ssl_transfer.models.heads import ClassifierHead as ClassifierHead
    from ssl_transfer.models.heads import EmbeddingHead as EmbeddingHead
    from ssl_transfer.models.heads import ProjectionHead as ProjectionHead
    from ssl_transfer.models.pretrained import timm_pretrained as timm_pretrained
    from ssl_transfer.models.pretrained import torchvision_pretrained as torchvision_pretrained

_HOME = {
    "AveragedModel": "ema",
    "Backbone": "backbones",
    "ClassifierHead": "heads",
    "EmbeddingHead": "heads",
    "EmbeddingModel": "embedding",
    "FeatureMaps": "embedding",
    "Frozen": "frozen",
    "MomentumEncoder": "ema",
    "Output": "embedding",
    "Preprocessing": "backbones",
    "ProjectionHead": "heads",
    "WithLogits": "embedding",
    "create_backbone": "backbones",
    "load_foreign": "foreign.loading",
    "timm_pretrained": "pretrained",
    "torchvision_pretrained": "pretrained",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
