"""Embedding transfer: a student learns the geometry of a frozen teacher from unlabelled images."""

from typing import Protocol

import torch
from torch import Tensor, nn

from ssl_transfer.distributed import gather_rows, own_rows
from ssl_transfer.losses import relaxed_contrastive
from ssl_transfer.models import Frozen


class Views(Protocol):
    """The part of a batch that this task uses."""

    @property
    def views(self) -> tuple[Tensor, ...]:
        """Each (n, c, h, w) in [0, 1]; row i of every view shows the same image."""


class RelaxedContrastiveTransfer(nn.Module):
    """Train ``model`` so that its distances say what the teacher's say, over all pairs of the global batch.

    Teacher and student are fed the same views, each through its own preprocessing; no label is used.
    """

    def __init__(self, model: nn.Module, teacher: Frozen, *, sigma: float, delta: float):
        super().__init__()
        self.model, self.teacher = model, teacher
        self.sigma, self.delta = sigma, delta

    def forward(self, batch: Views) -> dict[str, Tensor]:
        """Compare student and teacher on all views of ``batch``."""
        images = torch.cat(batch.views)
        student, teacher = gather_rows(self.model(images)), gather_rows(self.teacher(images))
        loss = relaxed_contrastive(student, teacher, sigma=self.sigma, delta=self.delta, anchors=own_rows(len(images)))
        return {"loss": loss}
