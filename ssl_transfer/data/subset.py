"""Parts of a data set that are the same in every run."""

from dataclasses import replace

import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data import counter
from ssl_transfer.data.images import Images


def learned_images(images: Images, count: int | None = None, held_out: int = 0) -> Images:
    """The first ``count`` images of one fixed order of the data set, by default all but the last ``held_out``.

    The order is the same whatever the run's seed: a student and its teacher, and runs of several seeds, see the same
    images; a larger part holds a smaller one.

    Raises:
        ValueError: there are fewer images than that.
    """
    _refuse_more(images, count or 1, held_out)
    return images.subset(_fixed_order(images)[: len(images) - held_out if count is None else count])


def held_out_images(images: Images, count: int) -> Images:
    """The last ``count`` images of the same order, as a split of their own; none that is learned from is among them.

    Raises:
        ValueError: there are no more images than that.
    """
    _refuse_more(images, 1, count)
    return replace(images.subset(_fixed_order(images)[len(images) - count :]), split=f"held out of {images.split}")


def _fixed_order(images: Images) -> Int64[Tensor, " n"]:
    return counter.shuffle(torch.arange(len(images)), seed=0, stream=counter.SUBSET, epoch=0)


def _refuse_more(images: Images, count: int, held_out: int) -> None:
    if count + held_out > len(images):
        wanted = f"{count} to learn from and {held_out} to hold out" if held_out else str(count)
        raise ValueError(f"{images.name} {images.split} has {len(images)} images, not {wanted}: ask for fewer.")
