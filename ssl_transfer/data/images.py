"""A data set: the images of one split, held whole as a uint8 tensor or streamed from disk, on any device."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from ssl_transfer.data.device import to_device
from ssl_transfer.data.sources.inventory import Inventory
from ssl_transfer.data.sources.storage import FileNames
from ssl_transfer.data.sources.streaming import IndexOf, PixelReader, StreamedPixels


@dataclass(frozen=True)
class Images:
    """The images of one split, with their labels if it has any.

    Attributes:
        pixels: all of them in one tensor, or on disk and decoded when rows are asked for.
        labels: the number of each image's class, below ``classes``; None if the split has no labels.
        name, split: what the data set and its split are called.
        mean, std: of each channel, for pixels in [0, 1], as published for the data set.
        class_names: by the number of the class, where classes have names.
        folds: the rows of each fold, where the data set defines folds (STL-10).
        queries: where a data set searches for its queries among its other images (In-shop), the number of queries,
            which are the first rows.
        files: the name of each image's file within the data set, such as ``birds/7.jpg``; None where images are no
            files.
        inventory: what the reader of files took and left out for the whole split, of which these images may be a part.
    """

    pixels: UInt8[Tensor, "n c h w"] | StreamedPixels
    labels: Int64[Tensor, " n"] | None
    classes: int | None
    name: str
    split: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] | None = None
    folds: tuple[Int64[Tensor, " _"], ...] | None = None
    queries: int | None = None
    files: FileNames | None = None
    inventory: Inventory | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def resident(self) -> bool:
        """Whether all pixels are held in memory."""
        return isinstance(self.pixels, Tensor)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits, the same for the same images and labels in the same order wherever they lie.

        They are of the SHA-256 of the shape, the labels, and the pixels, if those are held. Pixels that are streamed
        are not decoded for it: it is made of their files' names and samples of their content instead.
        """
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        if isinstance(self.pixels, StreamedPixels):
            digest.update(self.pixels.fingerprint.encode())
        else:
            digest.update(self.pixels.cpu().contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def to(self, device: torch.device | str) -> "Images":
        """The same images on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels)

    def middle(self, size: int) -> "Images":
        """The same images cut to their middle ``size`` x ``size`` pixels, as torchvision's CenterCrop does.

        Raises:
            ValueError: the images are smaller than that.
        """
        height, width = self.pixels.shape[-2:]
        if size > min(height, width):
            raise ValueError(f"the middle of {size} px does not fit into images of {height} x {width} px.")
        if isinstance(self.pixels, StreamedPixels):
            return replace(self, pixels=self.pixels.middle(size))
        top, left = round((height - size) / 2), round((width - size) / 2)
        return replace(self, pixels=self.pixels[..., top : top + size, left : left + size])

    def subset(self, index: Int[Tensor, " m"]) -> "Images":
        """The images in these rows, in this order, without ``folds`` and ``queries``, which are of the whole split."""
        labels = None if self.labels is None else self.labels[index.to(self.labels.device)]
        files = None if self.files is None else self.files.select(index)
        if isinstance(self.pixels, StreamedPixels):
            return replace(self, pixels=self.pixels.select(index), labels=labels, files=files, folds=None, queries=None)
        pixels = self.pixels[index.to(self.pixels.device)]
        return replace(self, pixels=pixels, labels=labels, files=files, folds=None, queries=None)

    def numbered_like(self, class_names: Sequence[str] | None) -> "Images":
        """The same images with their classes numbered as in ``class_names``, and those that it lacks after them.

        Two folders number their classes independently, so the same class has different numbers in them if one of them
        lacks another class. Classes are matched by name; where either has no names, nothing changes.
        """
        if self.class_names is None or class_names is None or self.labels is None:
            return self
        names = (*class_names, *(name for name in self.class_names if name not in class_names))
        number = torch.tensor([names.index(name) for name in self.class_names], device=self.labels.device)
        return replace(self, labels=number[self.labels], classes=len(names), class_names=names)

    def reader(self, index_of: IndexOf, *, steps: int | None = None) -> "PixelReader | HeldReader":
        """A function that gives, for a step, the pixels of the rows ``index_of(step)``, on the device of the images.

        If pixels are streamed, those of the following steps are decoded ahead, up to the last of ``steps`` steps if
        that is given; call ``close`` in the end to stop that.
        """
        if isinstance(self.pixels, StreamedPixels):
            return PixelReader(self.pixels, index_of, steps=steps)
        return HeldReader(self.pixels, index_of)

    def parts(self, rows: slice, size: int = 512) -> Iterator[UInt8[Tensor, "m c h w"]]:
        """The pixels of consecutive rows, part by part: all at once if they are held, else ``size`` rows at a time."""
        if isinstance(self.pixels, StreamedPixels):
            yield from self.pixels.parts(rows, size)
        elif len(self.pixels[rows]):
            yield self.pixels[rows]


class HeldReader:
    """Gives the pixels of a step's images, as :class:`PixelReader` does, from pixels that are held in memory."""

    def __init__(self, pixels: UInt8[Tensor, "n c h w"], index_of: IndexOf):
        self.pixels, self.index_of = pixels, index_of

    def __call__(self, step: int) -> UInt8[Tensor, "m c h w"]:
        """The pixels of this step's images."""
        return self.pixels[to_device(self.index_of(step), self.pixels.device)]

    def close(self) -> None:
        """Do nothing: no worker was started."""
