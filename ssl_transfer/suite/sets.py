"""The data sets of a suite, each opened with its splits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from ssl_transfer.catalog.benchmarks import BENCHMARKS
from ssl_transfer.config.data import Decoded
from ssl_transfer.data import Images, load_images
from ssl_transfer.data.sources.benchmarks import voc_presence
from ssl_transfer.data.sources.joined import join
from ssl_transfer.data.sources.streaming import StreamedPixels
from ssl_transfer.data.subset import class_places, even_rows

_TEST, _VALIDATION = ("test", "testing"), ("val", "valid", "validation", "dev")  # sub-folders of a person's own images
_FIFTH = 5


@dataclass(frozen=True)
class SuiteSet:
    """A labeled data set as the suite's protocol sees it.

    ``held_out`` are the rows of ``train`` that a predefined validation split has, None without one. ``presence`` has
    the classes of training and test images where an image may be of several; ``splits`` says in words where the splits
    are from.
    """

    name: str
    measure: str
    train: Images
    test: Images
    splits: str
    held_out: Bool[Tensor, " n_train"] | None = None
    presence: tuple[Int64[Tensor, "n_train c"], Int64[Tensor, "n_test c"]] | None = None

    @property
    def images(self) -> int:
        """How many images its features are of."""
        return len(self.train) + len(self.test)

    def seen_by(self, channels: int, size: int, workers: int, device: torch.device) -> "SuiteSet":
        """The same images as a network of that many channels and that input size is shown them, on the device.

        Files are brought to the network's size. Images that are held keep theirs; gray ones are repeated for a network
        of colors, and colors become gray for one without.
        """
        train, test = (_placed(images, channels, size, workers).to(device) for images in (self.train, self.test))
        return replace(self, train=train, test=test)


def open_set(name: str, root: Path, *, download: bool = False, limit: int | None = None) -> SuiteSet:
    """The data set of that name below ``root``, or the folder; files are listed and not decoded.

    ``limit`` is the most images of a split that are looked at, drawn evenly of all classes.

    Raises:
        FileNotFoundError: it is not there; says how to get it.
        ValueError: it is damaged, or has no labels.
    """
    opened = _benchmark(name, root, download) if name in BENCHMARKS else _folder(Path(name))
    return opened if limit is None else _limited(opened, limit)


def _load(name: str, root: Path, split: str, download: bool = False) -> Images:
    size = 1 if name in get_args(Decoded) else None  # of what is listed; each network is shown its own
    return load_images(name, root, split=split, download=download, decode=False, image_size=size)


def _benchmark(name: str, root: Path, download: bool) -> SuiteSet:
    known = BENCHMARKS[name]
    try:
        parts = {split: _load(name, root, split, download) for split in known.splits}
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} To have it: {known.get}." if known.get not in str(error) else str(error)
        ) from error
    train, held_out = parts["train"], None
    if "val" in parts:
        held_out = torch.arange(len(train) + len(parts["val"])) >= len(train)
        train = join(train, parts["val"])
    presence = None
    if name == "voc2007":
        tables = [voc_presence(root, split) for split in ("train", "val", "test")]
        presence = torch.cat(tables[:2]), tables[2]
    return SuiteSet(name, known.measure, train, parts["test"], known.drawn or "official", held_out, presence)


def _folder(folder: Path) -> SuiteSet:
    """A person's own images: their sub-folders train and test (or val), or a fifth of each class for testing."""
    test, validation = (
        next((path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in names), None)
        for names in (_TEST, _VALIDATION)
    )
    train = _load("folder", folder, "train")
    if train.labels is None:
        raise ValueError(f"{folder} has no labels: put the images of each class into a folder of its own")
    name = str(folder)
    if test is None and validation is None:
        place, size = class_places(train.labels)
        tested = place >= size - size // _FIFTH
        rows = torch.arange(len(train))
        held = replace(train.subset(rows[tested]), split="a fifth of train")
        return SuiteSet(name, "top-1", train.subset(rows[~tested]), held, "a fifth of each class drawn for testing")
    tested_on = test or validation
    assert tested_on is not None
    held_out = None
    if test is not None and validation is not None:
        more = _load("folder", folder, validation).numbered_like(train.class_names)
        held_out = torch.arange(len(train) + len(more)) >= len(train)
        train = join(train, more)
    splits = f"its folders train{f', {validation}' if held_out is not None else ''} and {tested_on}"
    return SuiteSet(
        name, "top-1", train, _load("folder", folder, tested_on).numbered_like(train.class_names), splits, held_out
    )


def _limited(opened: SuiteSet, limit: int) -> SuiteSet:
    chosen = [even_rows(images, limit) for images in (opened.train, opened.test)]
    if opened.images == sum(map(len, chosen)):
        return opened
    train, test = (images.subset(rows) for images, rows in zip((opened.train, opened.test), chosen, strict=True))
    held_out = None if opened.held_out is None else opened.held_out[chosen[0]]
    presence = None
    if opened.presence is not None:
        presence = opened.presence[0][chosen[0]], opened.presence[1][chosen[1]]
    splits = f"{opened.splits}, of which at most {limit:,} images each"
    return replace(opened, train=train, test=test, splits=splits, held_out=held_out, presence=presence)


def _placed(images: Images, channels: int, size: int, workers: int) -> Images:
    if isinstance(images.pixels, StreamedPixels):
        return replace(images, pixels=replace(images.pixels, canvas=size, size=size, workers=workers))
    own = images.pixels.shape[1]
    if own == channels:
        return images
    pixels = rgb_to_grayscale(images.pixels) if channels == 1 else images.pixels.expand(-1, channels, -1, -1)
    return replace(images, pixels=pixels.contiguous())
