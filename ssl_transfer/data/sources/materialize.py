"""From a list of encoded images to a data set: decoded and held, or checked and streamed."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.broken import find_broken, whole_rows
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.inventory import BROKEN, Inventory
from ssl_transfer.data.sources.streaming import StreamedPixels

RESIDENT_LIMIT = 4 * 2**30  # bytes of uint8 pixels that are held unless told otherwise: STL-10's 100,000 take 2.8e9
_LARGEST = 2**14  # side of a canvas in pixels: one takes 800 MB
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Decoding:
    """To what size encoded images are brought, when, and what becomes of those that cannot be decoded.

    Keyword arguments:
        image_size: side in pixels of the squares.
        on_error: ``raise`` an error that lists the broken images, or ``skip`` them and list them in the log.
        resident: hold all pixels in memory, or decode images whenever they are needed; ``auto`` holds up to 4 GiB.
        workers: processes that decode ahead where pixels are not held; 0: this process decodes.
        memory: a folder that remembers which images are broken, so that a data set that is not held is checked once
            and not at each start.
        unchecked: do not decode every image of a set that is not held to find the broken ones: whoever meets one stops.
            Not with ``skip``, since which images are whole decides the order of all.

    Raises:
        ValueError: ``unchecked`` is on with ``skip``, ``on_error`` or ``resident`` is none of these, or a number is out
            of range.
    """

    image_size: int
    on_error: str = "raise"
    resident: bool | str = "auto"
    workers: int = 0
    memory: Path | None = None
    unchecked: bool = False

    def __post_init__(self) -> None:
        if self.unchecked and self.on_error == "skip":
            raise ValueError("on_error skip needs to know which images are broken: leave out unchecked.")
        if not 1 <= self.image_size <= _LARGEST:
            raise ValueError(f"image_size {self.image_size} must be 1 to {_LARGEST}.")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error {self.on_error} must be raise or skip.")
        if self.resident not in ("auto", True, False):
            raise ValueError(f"resident {self.resident} must be auto, True or False.")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers} must be 0 or more.")


def materialize(encoded: EncodedImages, decoding: Decoding) -> Images:
    """The images, held or streamed, without those that are broken.

    Every image is decoded once: to be held, or to find those that are broken (:func:`find_broken`) before one of those
    that are streamed is needed, unless they are to stay unchecked.

    Raises:
        ValueError: images cannot be decoded, and are not to be skipped or are all there are.
    """
    size = decoding.image_size
    if are_held(len(encoded), size, decoding.resident):
        pixels, broken = encoded.decode_in_threads(range(len(encoded)), size)
        rows = whole_rows(encoded, broken, decoding.on_error)
        return _images(encoded.select(rows), pixels[rows] if broken else pixels, _inventory(encoded, broken))
    broken = {} if decoding.unchecked else find_broken(encoded, size, memory=decoding.memory)
    whole = encoded.select(whole_rows(encoded, broken, decoding.on_error))
    return _images(whole, StreamedPixels(whole, size, size, decoding.workers), _inventory(encoded, broken))


def list_only(encoded: EncodedImages, image_size: int) -> Images:
    """The images without a look at one: number, labels and fingerprint are known, pixels are decoded when asked for."""
    return _images(encoded, StreamedPixels(encoded, image_size, image_size, workers=0), encoded.inventory)


def _images(encoded: EncodedImages, pixels: torch.Tensor | StreamedPixels, inventory: Inventory) -> Images:
    return Images(
        pixels=pixels,
        labels=encoded.labels,
        classes=encoded.classes,
        name=encoded.name,
        split=encoded.split,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        class_names=encoded.class_names,
        files=encoded.files,
        inventory=inventory,
    )


def _inventory(encoded: EncodedImages, broken: dict[int, str]) -> Inventory:
    return encoded.inventory.without(BROKEN, [encoded.file_name(row) for row in sorted(broken)])


def are_held(count: int, image_size: int, resident: bool | str) -> bool:
    """Whether this number of images is held in memory, and not streamed, under that setting of :class:`Decoding`."""
    return count * 3 * image_size**2 <= RESIDENT_LIMIT if resident == "auto" else bool(resident)
