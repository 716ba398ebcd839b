"""Any tree of image files, decoded once into uint8 images of one size."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ssl_transfer.data.images import Images

log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_folder(root: Path, *, split: str, image_size: int, on_error: str = "raise") -> Images:
    """All images under ``root/<split>``, or under ``root`` for training where no such folder is.

    Where every image lies in a sub-folder, the first sub-folder's name is its class. Files that cannot be decoded are
    listed in one error, or left out with ``on_error="skip"`` and listed in a warning of the log.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error {on_error} must be raise or skip.")
    top = Path(root) / split
    if not top.is_dir() and split == "train":
        top = Path(root)
    if not top.is_dir():
        raise FileNotFoundError(f"There is no folder {top} for split {split}.")
    files = sorted(path for path in top.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise FileNotFoundError(f"There is no image under {top}: it must hold files ending in {', '.join(SUFFIXES)}.")
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda path: _try_to_decode(path, image_size), files))
    broken = [f"{path} ({image})" for path, image in zip(files, decoded, strict=True) if isinstance(image, Exception)]
    if broken and (on_error == "raise" or len(broken) == len(files)):
        raise ValueError(f"{len(broken)} of {len(files)} images cannot be decoded: {', '.join(broken)}.")
    if broken:
        log.warning("%d of %d images skipped: %s", len(broken), len(files), ", ".join(broken))
    kept = [path.relative_to(top).parts for path, image in zip(files, decoded, strict=True) if torch.is_tensor(image)]
    labeled = all(len(parts) > 1 for parts in kept)
    names = sorted({parts[0] for parts in kept})
    return Images(
        pixels=torch.stack([image for image in decoded if torch.is_tensor(image)]),
        labels=torch.tensor([names.index(parts[0]) for parts in kept]) if labeled else None,
        classes=len(names) if labeled else None,
        name=Path(root).name,
        split=split,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def decode(path: Path, size: int) -> UInt8[Tensor, "3 size size"]:
    """Read an image of any mode as RGB, its shorter side resized to ``size`` and its middle kept."""
    with Image.open(path) as image:
        image.draft("RGB", (size, size))  # a JPEG is decoded at the smallest scale that is still large enough
        rgb = to_rgb(image)
    side = min(rgb.size)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    middle = rgb.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    pixels = np.array(middle)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB; transparency is dropped, and of 16-bit gray the upper byte is kept."""
    if image.mode.startswith("I"):  # Pillow would clip 16-bit gray at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _try_to_decode(path: Path, size: int) -> UInt8[Tensor, "3 size size"] | Exception:
    try:
        return decode(path, size)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say that a file is broken
        return error
