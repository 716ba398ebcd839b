"""Images held or streamed, augmented views and batches, all pure functions of (seed, epoch, image, view).

Names are imported when first used, so that ``ssl_transfer.data.presets`` can be read without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_transfer.data.augment import Augment as Augment
    from ssl_transfer.data.batches import Batch as Batch
    from ssl_transfer.data.batches import Batches as Batches
    from ssl_transfer.data.datasets import load_images as load_images
    from ssl_transfer.data.images import Images as Images
    from ssl_transfer.data.presets import PRESETS as PRESETS

_HOMES = {
    "Augment": "augment",
    "Batch": "batches",
    "Batches": "batches",
    "Images": "images",
    "PRESETS": "presets",
    "load_images": "datasets",
}
__all__ = ["Augment", "Batch", "Batches", "Images", "PRESETS", "load_images"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
