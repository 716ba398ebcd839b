"""Which images of a split are trained on and which are kept apart: the same in every run, whatever its seed."""

from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data import counter
from ssl_transfer.data.images import Images


def learned_images(images: Images, count: int | None = None, held_out: int = 0) -> Images:
    """``count`` of the images, by default all, but none of those that :func:`held_out_images` keeps apart.

    The images are put into one fixed, random order; the first ``count`` of it are taken, and the last ``held_out`` are
    kept apart. The order depends on the number of images alone and not on a run's seed, so a student and its teacher,
    and runs with several seeds, see the same images, and those of a smaller ``count`` are among those of a larger one.

    Raises:
        ValueError: there are fewer than ``count`` and ``held_out`` images together, or none is left to learn from.
    """
    _refuse_more(images, count or 1, held_out)
    return images.subset(_fixed_order(images, 0, len(images) - held_out if count is None else count))


def held_out_images(images: Images, count: int) -> Images:
    """The ``count`` images that :func:`learned_images` with ``held_out=count`` does not give, as a split of their own.

    They are the last ones of the same order, and do not depend on how many of the others are learned from.

    Raises:
        ValueError: none would be left to learn from.
    """
    _refuse_more(images, 1, count)
    return replace(
        images.subset(_fixed_order(images, len(images) - count, len(images))), split=f"held out of {images.split}"
    )


def class_places(labels: Int64[Tensor, " n"]) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Each row's place, from 0, in one fixed, random order of the rows of its class, and the number of those rows."""
    _, code, sizes = labels.cpu().unique(return_inverse=True, return_counts=True)
    order = _shuffled(len(labels))
    by_class = order[code[order].argsort(stable=True)]
    place = torch.empty_like(by_class)
    starts = sizes.cumsum(dim=0) - sizes
    place[by_class] = torch.arange(len(labels)) - starts.repeat_interleave(sizes)
    return place, sizes[code]


def even_rows(images: Images, count: int) -> Int64[Tensor, " m"]:
    """The rows of at most ``count`` images, as evenly of all classes as there are, in their order; without labels any.

    Those of a smaller count are among those of a larger one.
    """
    labels = torch.zeros(len(images), dtype=torch.long) if images.labels is None else images.labels
    place, _ = class_places(labels)
    return place.argsort(stable=True)[:count].sort().values


def _fixed_order(images: Images, first: int, after: int) -> Int64[Tensor, " n"]:
    """The rows at these places of the order."""
    if len(images) <= counter.SORTED:
        return _shuffled(len(images))[first:after]
    parts = torch.arange(first, after).split(2**20)  # for the memory's sake
    drawn = {"seed": 0, "stream": counter.SUBSET, "epoch": 0}
    return torch.cat([counter.rows_at(part, len(images), **drawn) for part in parts])


def _shuffled(n: int) -> Int64[Tensor, " n"]:
    return counter.shuffle(torch.arange(n), seed=0, stream=counter.SUBSET, epoch=0)


def _refuse_more(images: Images, count: int, held_out: int) -> None:
    if count + held_out > len(images):
        wanted = f"{count} to learn from and {held_out} to hold out" if held_out else str(count)
        raise ValueError(f"{images.name} {images.split} has {len(images)} images, not {wanted}: ask for fewer.")
