"""Images held or streamed, augmented views and batches, all pure functions of (seed, epoch, image, view)."""

from ssl_transfer.catalog.presets import PRESETS
from ssl_transfer.data.batches import Batch, Batches
from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.datasets import load_images
from ssl_transfer.data.sources.inventory import Inventory
from ssl_transfer.data.views.augment import Augment

__all__ = ["PRESETS", "Augment", "Batch", "Batches", "Images", "Inventory", "load_images"]
