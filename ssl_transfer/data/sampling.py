"""Class-balanced batches: several images of each of some classes, as a pure function of (seed, epoch, place)."""

import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data.counter import CLASSES, MEMBERS, shuffle


class ClassBalanced:
    """Draws batches of ``batch_size / per_class`` classes with ``per_class`` images each.

    The classes of a batch are all different, each drawn with the same probability whatever its size; the images of a
    class are different too, unless it has fewer than ``per_class``, which then appear several times. Each batch is
    drawn independently of the others, so within an epoch an image may be in several batches or in none.

    Keyword arguments:
        batch_size: images in a batch, over all processes.
        per_class: images of each class in it.

    Raises:
        ValueError: ``batch_size`` is not a multiple of ``per_class``, or there are not enough classes for it.
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
        """The rows of the images in batch number ``place`` of an epoch; those of one class follow one another."""
        classes = shuffle(torch.arange(len(self.members)), seed=seed, stream=CLASSES, epoch=epoch, place=place)
        chosen = [self.members[label] for label in classes[: self.groups].tolist()]
        rows, sizes = torch.cat(chosen), torch.tensor([len(members) for members in chosen])
        group = torch.arange(self.groups).repeat_interleave(sizes)
        order = shuffle(rows, seed=seed, stream=MEMBERS, epoch=epoch, place=place)
        order = order[group[order].sort(stable=True).indices]  # class by class, each class's images in random order
        first = sizes.cumsum(0) - sizes
        taken = first[:, None] + torch.arange(self.per_class) % sizes[:, None]
        return rows[order][taken].flatten()
