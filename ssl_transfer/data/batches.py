"""Batches as a pure function of the step: nothing to save, nothing to seek, the same on any number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from ssl_transfer.data.counter import ORDER, SORTED, epoch_order, rows_at
from ssl_transfer.data.device import to_device
from ssl_transfer.data.images import Images
from ssl_transfer.data.sampling import ClassBalanced
from ssl_transfer.data.views.augment import Augment, make_views


@dataclass(frozen=True)
class Batch:
    """This process's share of the batch of a step.

    Attributes:
        views: each view of all images, in [0, 1].
        index: the row of each image in the data set.
        labels: of the images, if the data set has labels.
        step: the number of the step, from 0 on.
        view_id: which of an image's versions the views are: the number of the epoch, or with fixed views that modulo
            their number.
        remembered: for each teacher, its embeddings of the first view of all images, then of the second and so on,
            where they are remembered and not computed in this step.
    """

    views: tuple[Float[Tensor, "n c h w"], ...]  # float32 in a run
    index: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"] | None
    step: int
    view_id: int = 0
    remembered: tuple[Float[Tensor, "rows _"] | None, ...] | None = None  # float32 in a run


class Batches:
    """The batches of a run: for any step, this process's share of it, with views made on the device of the images.

    Each epoch visits the images in another order, which depends on the seed, the epoch and their number alone. A
    process takes a contiguous share of each batch, so the shares in the order of ranks are the batch that one process
    would have made.

    Keyword arguments:
        seed: of the orders and of all views.
        batch_size: images in a batch, over all processes.
        rank: the number of this process.
        world: how many processes there are.
        drop_last: leave the images that do not fill a last batch out of an epoch; else that batch is smaller.
        per_class: draw batches with this number of images of each of their classes
            (:class:`ssl_transfer.data.sampling.ClassBalanced`), as many in an epoch as there would be otherwise.
        fixed_views: make this number of versions of an image's views, and show them in turn, one in each epoch; else
            there are new ones in each.

    Raises:
        ValueError: a batch, or the smaller last one, does not split evenly over the processes or is larger than the
            data set, or ``per_class`` does not go with the labels, the batch size or ``drop_last``.
    """

    def __init__(
        self,
        images: Images,
        views: Sequence[Augment],
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = True,
        per_class: int | None = None,
        fixed_views: int | None = None,
    ):
        if batch_size % world:
            raise ValueError(
                f"batch_size {batch_size} does not split over {world} processes: make it a multiple of {world}."
            )
        if batch_size > len(images):
            raise ValueError(
                f"batch_size {batch_size} is more than the {len(images)} images of {images.name} {images.split}."
            )
        if not drop_last and len(images) % batch_size % world:
            raise ValueError(
                f"The last batch of {len(images) % batch_size} images does not split over {world} processes: drop it."
            )
        if per_class is not None and images.labels is None:
            raise ValueError(f"per_class {per_class} needs labels, and {images.name} {images.split} has none.")
        if per_class is not None and not drop_last:
            raise ValueError(f"per_class {per_class} makes whole batches only: leave drop_last on.")
        self.images, self.views, self.seed = images, tuple(views), seed
        self.balanced = (
            None
            if per_class is None or images.labels is None
            else ClassBalanced(images.labels.cpu(), batch_size=batch_size, per_class=per_class)
        )
        self.batch_size, self.rank, self.world = batch_size, rank, world
        whole, rest = divmod(len(images), batch_size)
        self.steps_per_epoch = whole if drop_last or not rest else whole + 1
        self.fixed_views = fixed_views
        # Two epochs: where pixels are streamed, the next one's order is asked for before this one has ended.
        self._epoch_order = lru_cache(maxsize=2)(partial(_order, seed, len(images)))
        self.index = lru_cache(maxsize=16)(self._index)
        self._read = images.reader(self.index)

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of this step.

        Raises:
            ValueError: an image that is streamed cannot be decoded; names its file.
        """
        epoch, _ = divmod(step, self.steps_per_epoch)
        view_id = epoch % self.fixed_views if self.fixed_views else epoch
        index = self.index(step)
        on_device = to_device(index, self.images.pixels.device)
        labels = None if self.images.labels is None else self.images.labels[on_device]
        return Batch(self.views_of(self._read(step), index, view_id), on_device, labels, step, view_id)

    def views_of(
        self, pixels: UInt8[Tensor, "n c height width"], index: Int64[Tensor, " n"], view_id: int
    ) -> tuple[Float32[Tensor, "n c h w"], ...]:
        """All views, in version ``view_id``, of images given by their pixels and their rows in the data set.

        Raises:
            ValueError: as :class:`Augment` does.
        """
        return make_views(self.views, pixels, seed=self.seed, epoch=view_id, index=index)

    def close(self) -> None:
        """End the workers that decode the images of coming steps, if images are streamed."""
        self._read.close()

    def _index(self, step: int) -> Int64[Tensor, " n"]:
        """The rows of this process's share of a step's batch; on the CPU, where parameters are drawn."""
        rows = self._rows(*divmod(step, self.steps_per_epoch))
        share = len(rows) // self.world
        return rows[self.rank * share : (self.rank + 1) * share]

    def _rows(self, epoch: int, place: int) -> Int64[Tensor, " n"]:
        if self.balanced is not None:
            return self.balanced.rows(seed=self.seed, epoch=epoch, place=place)
        first, length = place * self.batch_size, len(self.images)
        after = min(first + self.batch_size, length)
        if length <= SORTED:
            return self._epoch_order(epoch)[first:after]
        return rows_at(torch.arange(first, after), length, seed=self.seed, stream=ORDER, epoch=epoch)


def _order(seed: int, length: int, epoch: int) -> Int64[Tensor, " n"]:
    return epoch_order(seed, epoch, length)
