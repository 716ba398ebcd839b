"""Running averages of a model's weights: one to score, one to learn from."""

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
        """Move the average towards ``model``, by ``1 - momentum`` of the way; one fused operation over all weights."""
        torch._foreach_lerp_(list(self.module.parameters()), list(model.parameters()), weight=1 - momentum)
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))


class MomentumEncoder(nn.Module):
    """A copy whose weights trail the model's, encoding what the model is contrasted with (He et al., CVPR 2020).

    Unlike :class:`AveragedModel` it follows ``train()``: in training its batch norms use the statistics of the batch
    that they see, as in MoCo's code, and keep running ones of their own. Nothing in it gets a gradient.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.module = deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """What the trailing copy gives, without gradient."""
        return self.module(images)

    @torch.no_grad()
    def update(self, model: nn.Module, *, momentum: float) -> None:
        """Move the weights towards those of ``model``: ``momentum * own + (1 - momentum) * model``."""
        own: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(model.parameters())
        torch._foreach_mul_(own, momentum)
        torch._foreach_add_(own, theirs, alpha=1 - momentum)
