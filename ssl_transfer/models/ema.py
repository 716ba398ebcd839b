"""A running average of a model's weights."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class AveragedModel(nn.Module):
    """Exponential moving average of a model's weights, for scoring.

    An update is ``average = momentum * average + (1 - momentum) * model``. The momentum is given each time,
    since it is a function of the step and nothing here counts steps. Buffers (batch-norm statistics) are
    copied, not averaged. The average is saved in checkpoints, stays in eval mode and gets no gradient.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.module = deepcopy(model).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "AveragedModel":
        """Stay in eval mode."""
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """What the averaged model gives, without gradient."""
        return self.module(images)

    @torch.no_grad()
    def update(self, model: nn.Module, *, momentum: float) -> None:
        """Move the average towards ``model``; one fused operation over all weights."""
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), weight=1 - momentum)
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
