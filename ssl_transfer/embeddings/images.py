"""The images that a person wants embedded: a folder, files, a data set by its name, or what is in memory already."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ssl_transfer.config.data import Dataset, Decoded
from ssl_transfer.data import Images, load_images
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.materialize import IMAGENET_MEAN, IMAGENET_STD, list_only
from ssl_transfer.section import location, suggest

Wanted = str | Path | Sequence[str | Path] | Images | np.ndarray | Tensor


def find_images(
    wanted: Wanted, *, image_size: int, root: str | Path = "data", split: str = "test", labels: str = "auto"
) -> tuple[Images, dict[str, str]]:
    """The images that ``wanted`` names or is, those of files listed and not decoded; and where they lie, to be written.

    It is a folder, of which all images are taken, or one file or a list of them; the name of a data set, of which
    ``split`` lies under ``root``; images of this package; or pixels: an array of (n, height, width, channels) or a
    tensor of (n, channels, height, width), of bytes, or of floats in [0, 1]. ``image_size`` is the side to which files
    are brought; ``labels`` of a folder are :func:`ssl_transfer.data.load_images`'s.

    Raises:
        FileNotFoundError: there is no such folder, file or data set.
        ValueError: there is no image in it, or it is none of these.
    """
    if isinstance(wanted, Images):
        return wanted, {}
    if isinstance(wanted, np.ndarray | Tensor):
        return _held(wanted), {}
    if not isinstance(wanted, str | Path):
        return _files([str(path) for path in wanted], image_size), {"folder": os.getcwd()}
    path, name = Path(location(str(wanted))), str(wanted)
    if path.is_dir():
        images = load_images("folder", path, split=".", image_size=image_size, labels=labels, decode=False)
        return images, {"folder": os.path.abspath(path)}
    if path.is_file():
        return _files([str(path)], image_size), {"folder": os.getcwd()}
    if name not in get_args(Dataset):
        raise FileNotFoundError(
            f"there is no folder or file {name}, and no data set of that name{suggest(name, get_args(Dataset))}"
        )
    sized: dict[str, Any] = {"image_size": image_size} if name in get_args(Decoded) else {}
    images = load_images(name, root, split=split, download=True, labels=labels, decode=False, **sized)
    return images, {"dataset": name, "root": os.path.abspath(root), "split": split}


def _files(paths: list[str], image_size: int) -> Images:
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"there is no image file {path}")
    if not paths:
        raise ValueError("there are no images: name at least one file")
    files = EncodedImages.of_files(paths, None, root=Path(), name="files", split="given")
    return list_only(files, image_size)


def _held(given: np.ndarray | Tensor) -> Images:
    """Pixels in memory as images, in bytes.

    Raises:
        ValueError: they are neither bytes nor floats in [0, 1], or not of a shape that images have.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(given)) if isinstance(given, np.ndarray) else given.detach()
    if isinstance(given, np.ndarray) and pixels.ndim == 4:
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or not len(pixels):
        order = "(n, height, width, channels)" if isinstance(given, np.ndarray) else "(n, channels, height, width)"
        raise ValueError(
            f"pixels of shape {tuple(given.shape)} are no images: give {order} with 1 or 3 channels, or a folder"
        )
    if pixels.is_floating_point():
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            low, high = pixels.aminmax()
            raise ValueError(f"pixels of {low:g} to {high:g} are no images: give bytes, or floats in [0, 1]")
        pixels = (pixels * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels of {pixels.dtype} are no images: give bytes (uint8), or floats in [0, 1]")
    channels = pixels.shape[1]
    return Images(pixels.contiguous(), None, None, "pixels", "given", IMAGENET_MEAN[:channels], IMAGENET_STD[:channels])
