"""Batches as a pure function of the step: nothing to save, nothing to seek, the same on any number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float32, Int64
from torch import Tensor

from ssl_transfer.data.augment import Augment
from ssl_transfer.data.counter import epoch_order
from ssl_transfer.data.images import Images


@dataclass(frozen=True)
class Batch:
    """This process's share of a global batch: its views, and where its images lie in the data set."""

    views: tuple[Float32[Tensor, "n c h w"], ...]
    index: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"] | None
    step: int


class Batches:
    """The batches of a run over resident images, views made on the images' device.

    ``batch_size`` is global. Each epoch visits the images in a new order; a process takes its contiguous share of each
    global batch, so shares put together in the order of ranks are the batch that one process would have made.
    With ``drop_last`` the images that fill no whole batch sit an epoch out; without it the last batch of an epoch is
    the smaller remainder, which must split evenly too.
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
        self.images, self.views, self.seed = images, tuple(views), seed
        self.batch_size, self.rank, self.world = batch_size, rank, world
        whole, rest = divmod(len(images), batch_size)
        self.steps_per_epoch = whole if drop_last or not rest else whole + 1
        self._order: tuple[int, Int64[Tensor, " n"]] | None = None  # of the epoch asked for last

    def batch(self, step: int) -> Batch:
        """This process's share of the given step's batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self._epoch_order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        share = len(rows) // self.world
        index = rows[self.rank * share : (self.rank + 1) * share]  # on the CPU, where parameters are drawn
        on_device = index.to(self.images.pixels.device)
        pixels = self.images.pixels[on_device]
        views = tuple(
            augment(pixels, seed=self.seed, epoch=epoch, index=index, view=view)
            for view, augment in enumerate(self.views)
        )
        labels = None if self.images.labels is None else self.images.labels[on_device]
        return Batch(views=views, index=on_device, labels=labels, step=step)

    def _epoch_order(self, epoch: int) -> Int64[Tensor, " n"]:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, epoch_order(self.seed, epoch, len(self.images)))
        return self._order[1]
