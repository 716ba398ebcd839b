"""From a list of encoded images to a data set: decoded and held, or checked and streamed."""

from pathlib import Path
from typing import Literal

import torch

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.broken import find_broken, whole_rows
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.streaming import StreamedPixels

RESIDENT_LIMIT = 4 * 2**30  # bytes of uint8 pixels that are held unless told otherwise: STL-10's 100,000 take 2.8e9
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def materialize(
    encoded: EncodedImages,
    *,
    image_size: int,
    on_error: str = "raise",
    resident: Literal["auto", True, False] = "auto",
    workers: int = 0,
    memory: Path | None = None,
    decode: bool = True,
) -> Images:
    """The images of ``encoded``, the shorter side of each brought to ``image_size`` and its middle kept.

    They are decoded and held if ``resident`` says so, or ``auto`` and they take at most 4 GiB (``RESIDENT_LIMIT``);
    else ``workers`` processes decode them whenever they are needed. Every image is decoded once before that, to find
    those that are broken (:func:`find_broken`, where ``memory`` is explained). Broken ones are listed in an error, or
    left out with ``on_error="skip"`` and listed in the log. With ``decode`` off none is decoded or left out before its
    pixels are asked for.

    Raises:
        ValueError: images cannot be decoded and are not to be skipped.
    """
    pixels: torch.Tensor | StreamedPixels
    if not decode:
        pixels = StreamedPixels(encoded, image_size, image_size, workers)
    elif are_held(len(encoded), image_size, resident):
        pixels, broken = encoded.decode_in_threads(range(len(encoded)), image_size)
        rows = whole_rows(encoded, broken, on_error)
        if broken:
            encoded, pixels = encoded.select(rows), pixels[rows]
    else:
        broken = find_broken(encoded, image_size, memory=memory)
        encoded = encoded.select(whole_rows(encoded, broken, on_error))
        pixels = StreamedPixels(encoded, image_size, image_size, workers)
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
    """Whether so many images are held in memory, and not streamed."""
    return count * 3 * image_size**2 <= RESIDENT_LIMIT if resident == "auto" else resident
