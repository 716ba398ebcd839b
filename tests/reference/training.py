"""Training written out in plain PyTorch, from the formulas of its rates, clipping and averages: slow, obvious twins."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Trained(NamedTuple):
    """What came of each step, and of the last one."""

    losses: list[float]
    rates: list[float]
    norms: list[float]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]


def fit(
    task: nn.Module,
    batches: Sequence[Tensor],
    optimizer: Callable[..., torch.optim.Optimizer],
    *,
    rate: Callable[[int], float],
    scale_of: Callable[[str], float],
    decay_of: Callable[[Tensor], float],
    clip_norm: float | None,
    ema: float,
) -> Trained:
    """One step a batch; each weight is a group of its own, at ``scale_of`` its name times the rate of the step."""
    names, weights = zip(*task.named_parameters(), strict=True)
    groups = [{"params": [weight], "weight_decay": decay_of(weight)} for weight in weights]
    stepper, average = optimizer(groups, lr=0.0, foreach=False), deepcopy(task.state_dict())
    losses, rates, norms = [], [], []
    for step, batch in enumerate(batches):
        loss = task(batch)["loss"]
        stepper.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(entry**2 for weight in weights for entry in weight.grad.flatten().tolist()))
        for name, weight, group in zip(names, weights, stepper.param_groups, strict=True):
            group["lr"] = scale_of(name) * rate(step)
            if clip_norm is not None and norm > clip_norm:
                weight.grad *= clip_norm / (norm + 1e-6)  # torch's guard against a norm of zero
        stepper.step()
        for name, value in task.state_dict().items():
            average[name] = ema * average[name] + (1 - ema) * value if name in names else value.clone()
        losses.append(loss.item())
        rates.append(rate(step))
        norms.append(norm)
    return Trained(losses, rates, norms, task.state_dict(), average)


def warmup_cosine(step: int, *, total: int, warmup: int, base: float, final: float) -> float:
    """A line up to ``base``, which the last step of the warm-up has, then half a cosine that ends at ``final``."""
    if step < warmup:
        return base * (step + 1) / warmup
    return final + (base - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def step_seed(seed: int, step: int, rank: int) -> int:
    """What the generator of random masks is seeded with: a different odd number of 64 bits times each of the three."""
    return (seed * 11400714819323198485 + step * 13787848793156543929 + rank * 10723151780598845931) % 2**63


def finetune(
    network: nn.Module,
    classifier: nn.Linear,
    view: Callable[[int, Tensor], Tensor],
    labels: Tensor,
    order_of: Callable[[int], Tensor],
    *,
    epochs: int,
    batch_size: int,
) -> list[Tensor]:
    """Train both on ``view(epoch, rows)``, by SGD with Nesterov momentum 0.9; returns the features of every step.

    Sutskever et al., ICML 2013, as torch writes it: v = 0.9 v + g, then w = w - rate (g + 0.9 v). The rate falls along
    half a cosine from 0.05 batch_size / 256 (Chen et al., ICML 2020, appendix B.5). Nothing decays.
    """
    weights = [*network.parameters(), *classifier.parameters()]
    velocity = [torch.zeros_like(weight) for weight in weights]
    per_epoch = len(labels) // batch_size
    seen = []
    for step in range(epochs * per_epoch):
        epoch, place = step // per_epoch, step % per_epoch
        rows = order_of(epoch)[place * batch_size : (place + 1) * batch_size]
        rate = 0.05 * batch_size / 256 * 0.5 * (1 + math.cos(math.pi * step / (epochs * per_epoch)))
        features = network(view(epoch, rows))
        gradients = torch.autograd.grad(F.cross_entropy(classifier(features), labels[rows]), weights)
        with torch.no_grad():
            for weight, v, gradient in zip(weights, velocity, gradients, strict=True):
                v.mul_(0.9).add_(gradient)
                weight.sub_(rate * (gradient + 0.9 * v))
        seen.append(features.detach())
    return seen
