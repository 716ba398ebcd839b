"""Teachers from other tools' checkpoints: files read without running code, every weight accounted for.

Names are imported on first use, so that the table of formats can be read without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_transfer.models.foreign.formats import FORMATS as FORMATS
    from ssl_transfer.models.foreign.formats import Format as Format
    from ssl_transfer.models.foreign.loading import LoadReport as LoadReport
    from ssl_transfer.models.foreign.loading import load_foreign as load_foreign
    from ssl_transfer.models.foreign.reading import read_tensors as read_tensors

_HOME = {
    "FORMATS": "formats",
    "Format": "formats",
    "LoadReport": "loading",
    "load_foreign": "loading",
    "read_tensors": "reading",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
