"""A data set: the images of one split, held whole as a uint8 tensor or streamed from disk, on any device."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from ssl_transfer.data.device import to_device
from ssl_transfer.data.sources.intake import Intake
from ssl_transfer.data.sources.streaming import IndexOf, PixelReader, StreamedPixels


@dataclass(frozen=True)
class Images:
    """The images of one split, their labels if it has any, and the channel statistics published for the data set.

    ``class_names`` are known where classes are folders. Where a data set asks with some images and searches among
    others, the first ``queries`` are those that ask. ``folds`` are the rows of each fold that the data set defines.
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
    intake: Intake | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def resident(self) -> bool:
        """Whether all pixels are held in memory."""
        return isinstance(self.pixels, Tensor)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of shape, pixels and labels.

        Streamed pixels are not read for it: the names and sizes of their files stand for them.
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
        """The same images cut to their middle ``size`` x ``size`` pixels, as torchvision's CenterCrop does."""
        height, width = self.pixels.shape[-2:]
        if size > min(height, width):
            raise ValueError(f"the middle of {size} px does not fit into images of {height} x {width} px.")
        if isinstance(self.pixels, StreamedPixels):
            return replace(self, pixels=self.pixels.middle(size))
        top, left = round((height - size) / 2), round((width - size) / 2)
        return replace(self, pixels=self.pixels[..., top : top + size, left : left + size])

    def subset(self, index: Int[Tensor, " m"]) -> "Images":
        """The images at these places, in this order; predefined folds and queries are lost."""
        labels = None if self.labels is None else self.labels[index.to(self.labels.device)]
        if isinstance(self.pixels, StreamedPixels):
            return replace(self, pixels=self.pixels.select(index), labels=labels, folds=None, queries=None)
        pixels = self.pixels[index.to(self.pixels.device)]
        return replace(self, pixels=pixels, labels=labels, folds=None, queries=None)

    def numbered_like(self, other: "Images") -> "Images":
        """The same images with ``other``'s numbers for the classes that both have, by name, where names are known.

        Two folders of images number their classes each for itself; if one lacks a class, the numbers are not the same.
        """
        if self.class_names is None or other.class_names is None or self.labels is None:
            return self
        names = (*other.class_names, *(name for name in self.class_names if name not in other.class_names))
        number = torch.tensor([names.index(name) for name in self.class_names], device=self.labels.device)
        return replace(self, labels=number[self.labels], classes=len(names), class_names=names)

    def reader(self, index_of: IndexOf, *, steps: int | None = None) -> "PixelReader | HeldReader":
        """A function from a step to the pixels of the rows ``index_of(step)``, on the device; ``close`` it in the end.

        Streamed pixels of the following steps, of ``steps`` in all, are decoded ahead.
        """
        if isinstance(self.pixels, StreamedPixels):
            return PixelReader(self.pixels, index_of, steps=steps)
        return HeldReader(self.pixels, index_of)

    def parts(self, rows: slice, size: int = 512) -> Iterator[UInt8[Tensor, "m c h w"]]:
        """The pixels of consecutive rows: in one part where they are held, else ``size`` images at a time."""
        if isinstance(self.pixels, StreamedPixels):
            yield from self.pixels.parts(rows, size)
        elif len(self.pixels[rows]):
            yield self.pixels[rows]


class HeldReader:
    """What :class:`PixelReader` is for pixels that are held."""

    def __init__(self, pixels: UInt8[Tensor, "n c h w"], index_of: IndexOf):
        self.pixels, self.index_of = pixels, index_of

    def __call__(self, step: int) -> UInt8[Tensor, "m c h w"]:
        """The pixels of this step's images."""
        return self.pixels[to_device(self.index_of(step), self.pixels.device)]

    def close(self) -> None:
        """Nothing is open."""
