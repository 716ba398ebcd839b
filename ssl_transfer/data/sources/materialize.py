"""From a list of encoded images to a data set: decoded and held, or checked and streamed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.broken import find_broken, whole_rows
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.streaming import StreamedPixels

RESIDENT_LIMIT = 4 * 2**30  # bytes of uint8 pixels that are held unless told otherwise: STL-10's 100,000 take 2.8e9
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Decoding:
    """When encoded images are decoded, and what becomes of those that cannot be. No pixel depends on it.

    Keyword arguments:
        on_error: ``raise`` an error that lists the broken images, or ``skip`` them and list them in the log.
        resident: hold all pixels in memory, or decode images whenever they are needed; ``auto`` holds up to 4 GiB.
        workers: processes that decode ahead where pixels are not held; 0: this process decodes.
        memory: a folder that remembers which images are broken, so that a data set that is not held is checked once
            and not at each start.

    Raises:
        ValueError: ``on_error`` or ``resident`` is none of these, or ``workers`` is negative.
    """

    on_error: Literal["raise", "skip"] = "raise"
    resident: Literal["auto", True, False] = "auto"
    workers: int = 0
    memory: Path | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error {self.on_error} must be raise or skip.")
        if self.resident not in ("auto", True, False):
            raise ValueError(f"resident {self.resident} must be auto, True or False.")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers} must not be negative.")


DECODE = Decoding()


def materialize(encoded: EncodedImages, image_size: int, decoding: Decoding | None = DECODE) -> Images:
    """The images with the shorter side of each brought to ``image_size`` and its middle kept.

    Every image is decoded once, to be held or to find those that are broken (:func:`find_broken`), before a streamed
    one is decoded again whenever it is needed. With ``decoding`` None none is decoded, or left out, before its pixels
    are asked for.

    Raises:
        ValueError: images cannot be decoded, and are not to be skipped or are all there are.
    """
    pixels: torch.Tensor | StreamedPixels
    if decoding is None:
        pixels = StreamedPixels(encoded, image_size, image_size, workers=0)
    elif are_held(len(encoded), image_size, decoding.resident):
        pixels, broken = encoded.decode_in_threads(range(len(encoded)), image_size)
        rows = whole_rows(encoded, broken, decoding.on_error)
        if broken:
            encoded, pixels = encoded.select(rows), pixels[rows]
    else:
        broken = find_broken(encoded, image_size, memory=decoding.memory)
        encoded = encoded.select(whole_rows(encoded, broken, decoding.on_error))
        pixels = StreamedPixels(encoded, image_size, image_size, decoding.workers)
    return Images(
        pixels=pixels,
        labels=encoded.labels,
        classes=encoded.classes,
        name=encoded.name,
        split=encoded.split,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        class_names=encoded.class_names,
    )


def are_held(count: int, image_size: int, resident: Literal["auto", True, False]) -> bool:
    """Whether this number of images is held in memory, and not streamed, under that setting of :class:`Decoding`."""
    return count * 3 * image_size**2 <= RESIDENT_LIMIT if resident == "auto" else resident
