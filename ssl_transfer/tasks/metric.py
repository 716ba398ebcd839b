"""Metric learning: a network learns from labels an embedding in which a class lies together."""

import torch
from torch import Tensor, nn

from ssl_transfer.data import Batch
from ssl_transfer.distributed import gather_rows, world_size
from ssl_transfer.losses.precision import widen
from ssl_transfer.tasks.embed import embed


class MetricLearning(nn.Module):
    """Train ``model`` by ``loss(embeddings, labels)`` over all views of the global batch; ``loss`` may hold proxies.

    Every process computes the loss of the whole batch and hands back its n-th part for n processes. Summed, the parts
    are the loss; the gather's backward sums the rows' gradients, and DDP's average, after the engine's multiplication
    by n, leaves the proxies the gradient that one process would have: they move once, alike on every process.

    With ``freeze_batch_norm`` the model's batch norms keep the statistics they came with while their scales are
    trained, as the authors of Proxy-Anchor train on small data sets.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        *,
        freeze_batch_norm: bool,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.loss = model, loss
        self.freeze_batch_norm, self.micro_batch_size = freeze_batch_norm, micro_batch_size

    def train(self, mode: bool = True) -> "MetricLearning":
        """Switch to training; batch norms to be frozen stay in evaluation."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compare all views of ``batch`` by their classes.

        Raises:
            ValueError: the batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("metric learning needs labels, and these images have none: choose a data set that has.")
        embeddings = embed(self.model, torch.cat(batch.views), self.micro_batch_size, views=len(batch.views))
        embeddings = gather_rows(widen(embeddings))  # widened before: its backward adds up gradients
        labels = gather_rows(batch.labels.repeat(len(batch.views)))
        with torch.autocast(embeddings.device.type, enabled=False):
            return {"loss": self.loss(embeddings, labels) / world_size()}
