"""Self-supervised pretraining: how a teacher is made from unlabeled images."""

import torch
from torch import Tensor, nn

from ssl_transfer.data import Batch
from ssl_transfer.distributed import gather_rows, own_rows
from ssl_transfer.losses import nt_xent
from ssl_transfer.losses.precision import widen
from ssl_transfer.tasks.embed import embed


class SimCLR(nn.Module):
    """Find the other view of an image among all views of the global batch (Chen et al., ICML 2020).

    ``model`` ends in a projection head. The loss is :func:`ssl_transfer.losses.nt_xent`.
    """

    def __init__(self, model: nn.Module, *, temperature: float, micro_batch_size: int | None = None):
        super().__init__()
        self.model, self.temperature, self.micro_batch_size = model, temperature, micro_batch_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Contrast the two views of ``batch``."""
        # One pass over both views: batch norm sees them together, as a single process would see the whole batch.
        projections = embed(self.model, torch.cat(batch.views), self.micro_batch_size, views=len(batch.views))
        views = torch.stack(widen(projections).chunk(2), dim=1)
        first, second = gather_rows(views).unbind(1)
        return {"loss": nt_xent(first, second, temperature=self.temperature, anchors=own_rows(len(views)))}
