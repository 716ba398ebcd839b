"""Self-supervised pretraining: how a teacher is made from unlabeled images."""

import torch
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from ssl_transfer.data import Batch
from ssl_transfer.distributed import world_size
from ssl_transfer.losses.precision import widen
from ssl_transfer.tasks.embed import embed


class SimCLR(nn.Module):
    """Find the other view of an image among all views of the global batch (Chen et al., ICML 2020).

    ``model`` ends in a projection head. The loss is lightly's NT-Xent with rows of all processes as negatives, which
    it averages over this process's rows; divided by the number of processes that is this process's share.
    """

    def __init__(self, model: nn.Module, *, temperature: float, micro_batch_size: int | None = None):
        super().__init__()
        self.model, self.micro_batch_size = model, micro_batch_size
        self.nt_xent = NTXentLoss(temperature=temperature, gather_distributed=True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Contrast the two views of ``batch``."""
        # One pass over both views: batch norm sees them together, as a single process would see the whole batch.
        projections = embed(self.model, torch.cat(batch.views), self.micro_batch_size, views=len(batch.views))
        with torch.autocast(projections.device.type, enabled=False):
            first, second = widen(projections).chunk(2)
            return {"loss": self.nt_xent(first, second) / world_size()}
