"""Class-balanced batches: several images of each of some classes, as a pure function of (seed, epoch, place)."""

import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data.counter import CLASSES, MEMBERS, shuffle


class ClassBalanced:
    """Batches of ``batch_size / per_class`` classes with ``per_class`` images each.

    The classes of a batch are drawn without replacement, every class as likely as any other, and so are a class's
    images; only a class of fewer than ``per_class`` images gives some of them again. Batches do not know of each other:
    an image may come in two batches of an epoch, or in none.
    """

    def __init__(self, labels: Int64[Tensor, " n"], *, batch_size: int, per_class: int):
        if batch_size % per_class:
            raise ValueError(f"batch_size {batch_size} is not a multiple of per_class {per_class}: make it one.")
        self.per_class, self.groups = per_class, batch_size // per_class
        _, sizes = labels.unique(return_counts=True)
        self.members = labels.sort(stable=True).indices.cpu().split(sizes.tolist())
        if self.groups > len(self.members):
            raise ValueError(
                f"batch_size {batch_size} with {per_class} images per class needs {self.groups} classes and there are "
                f"{len(self.members)}: take a smaller batch_size or more images per class."
            )

    def rows(self, *, seed: int, epoch: int, place: int) -> Int64[Tensor, " batch_size"]:
        """The images of the epoch's batch number ``place``, those of a class side by side."""
        classes = shuffle(torch.arange(len(self.members)), seed=seed, stream=CLASSES, epoch=epoch, place=place)
        chosen = [self.members[label] for label in classes[: self.groups].tolist()]
        rows, sizes = torch.cat(chosen), torch.tensor([len(members) for members in chosen])
        group = torch.arange(self.groups).repeat_interleave(sizes)
        order = shuffle(rows, seed=seed, stream=MEMBERS, epoch=epoch, place=place)
        order = order[group[order].sort(stable=True).indices]  # class by class, each class's images in random order
        first = sizes.cumsum(0) - sizes
        taken = first[:, None] + torch.arange(self.per_class) % sizes[:, None]
        return rows[order][taken].flatten()
