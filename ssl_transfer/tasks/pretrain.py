"""Self-supervised pretraining: how a teacher is made from unlabelled images."""

from typing import Protocol

import torch
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from ssl_transfer.distributed import world_size


class Views(Protocol):
    """The part of a batch that these tasks use."""

    @property
    def views(self) -> tuple[Tensor, ...]:
        """Each (n, c, h, w) in [0, 1]; row i of every view shows the same image."""


class SimCLR(nn.Module):
    """Find the other view of an image among all views of the global batch (Chen et al., ICML 2020).

    ``model`` ends in a projection head. The loss is lightly's NT-Xent with rows of all processes as negatives, which
    it averages over this process's rows; divided by the number of processes that is this process's share.
    """

    def __init__(self, model: nn.Module, *, temperature: float):
        super().__init__()
        self.model = model
        self.nt_xent = NTXentLoss(temperature=temperature, gather_distributed=True)

    def forward(self, batch: Views) -> dict[str, Tensor]:
        """Contrast the two views of ``batch``."""
        # One pass over both views: batch norm sees them together, as a single process would see the whole batch.
        projections = self.model(torch.cat(batch.views))
        with torch.autocast(projections.device.type, enabled=False):
            first, second = projections.float().chunk(2)
            return {"loss": self.nt_xent(first, second) / world_size()}
