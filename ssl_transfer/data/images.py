"""A data set held whole: all images of one split as a single uint8 tensor, on any device."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """The images of one split, their labels if it has any, and the channel statistics published for the data set."""

    pixels: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"] | None
    classes: int | None
    name: str
    split: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of shape, pixels and labels."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.cpu().contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def to(self, device: torch.device | str) -> "Images":
        """The same images on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels)

    def subset(self, index: Int[Tensor, " m"]) -> "Images":
        """The images at these places, in this order."""
        labels = None if self.labels is None else self.labels[index.to(self.labels.device)]
        return replace(self, pixels=self.pixels[index.to(self.pixels.device)], labels=labels)
