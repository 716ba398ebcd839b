"""From the bytes of an image file, of any mode and size, to a square uint8 canvas."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def decode(encoded: bytes, size: int) -> UInt8[Tensor, "3 size size"]:
    """Read an image of any mode as RGB, its shorter side resized to ``size`` and its middle kept.

    The image is turned upright where its EXIF data say how, then resized bilinearly, antialiased, as torchvision's
    ``Resize(size)`` and ``CenterCrop(size)`` do. Of an animation it is the first frame.

    Raises:
        ValueError: the bytes are no whole image.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.draft("RGB", (size, size))  # a JPEG is decoded at the smallest scale that is still large enough
            ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(to_rgb(image))
    except Exception as error:  # each of Pillow's formats has its own ways to fail on a broken file
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    # torch resizes bytes to within 1 of Pillow, in less time: 1.0 to 1.7 times the images/s, decoding included
    height, width = (max(size, size * side // min(pixels.shape[:2])) for side in pixels.shape[:2])
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = F.interpolate(whole, (height, width), mode="bilinear", antialias=True)[0]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return resized[:, top : top + size, left : left + size].contiguous()


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB; transparency is dropped, and of 16-bit gray the upper byte is kept."""
    if image.mode.startswith("I"):  # Pillow would clip 16-bit gray at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy
