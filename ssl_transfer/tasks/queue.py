"""Rows remembered from earlier steps, the same on every process and for every number of processes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_transfer.distributed import gather_rows, single_process_order


class Queue(nn.Module):
    """The last ``size`` rows of length one that were pushed, newest first; random directions until then.

    It takes the place of the memory bank in lightly's ``NTXentLoss``, whose loss we use. lightly's bank does not fit:
    it is left out of checkpoints, its rows stand in an order that depends on the number of processes, it forgets the
    end of a batch that does not divide it, and it learns rows as soon as it is asked, before the second direction of a
    symmetric loss has asked.
    """

    rows: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer("rows", nn.functional.normalize(torch.randn(size, width), dim=1))

    def forward(
        self, keys: Float[Tensor, "n d"], labels: None = None, update: bool = False
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "d size"]]:
        """What lightly's loss asks its memory bank for: ``keys`` as they are, and the negatives as columns."""
        return keys, self.rows.T

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "n d"], *, views: int) -> None:
        """Remember the rows of all processes in the order that one process would have them; the oldest fall out.

        ``keys`` are this process's, ``views`` parts of equally many images one after the other.
        """
        gathered = gather_rows(nn.functional.normalize(keys, dim=1).to(self.rows.dtype))
        self.rows = pushed(self.rows, gathered, views)


def pushed(queue: Float[Tensor, "size d"], rows: Float[Tensor, "n d"], views: int) -> Float[Tensor, "size d"]:
    """The queue after ``rows``, gathered from all processes, in the order that one process would have them.

    A new tensor, not a change in place: the backward pass still needs the queue that the loss saw.
    """
    order = single_process_order(len(rows), views, rows.device).argsort()
    return torch.cat([rows.to(queue.dtype)[order], queue])[: len(queue)]
