"""Multinomial logistic regression with an L2 penalty, many of them in one batched problem."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.lbfgs import minimize

# A fit ends when a further step promises less than this share of the objective.
TOLERANCE = 1e-7
# Logits held at once: rows are walked in tiles of about this many numbers, which stay in a processor's cache.
TILE_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}


@dataclass(frozen=True)
class LogisticFit:
    """Weights and bias of ``s`` fitted classifiers, the objective each reached, and whether each converged."""

    weight: Float[Tensor, "s c d"]
    bias: Float[Tensor, "s c"]
    objective: Float[Tensor, " s"]
    converged: Bool[Tensor, " s"]

    def predict(self, x: Float[Tensor, "*s n d"]) -> Int64[Tensor, "s n"]:
        """The class of each row by each classifier; ``x`` is shared, or one table per classifier."""
        logits = self.weight.to(x) @ x.mT + self.bias.to(x)[:, :, None]
        return logits.argmax(dim=1)


def fit_logistic(
    x: Float[Tensor, "*s n d"],
    labels: Int64[Tensor, "*s n"],
    strengths: Float[Tensor, " s"],
    *,
    num_classes: int,
    max_evaluations: int = 1000,
) -> LogisticFit:
    """Minimise mean cross-entropy + strength / 2 |weight|^2 for each strength; the bias is not penalised.

    scikit-learn's ``LogisticRegression(C)`` minimises the same objective for ``C = 1 / (strength n)``: a
    strength means the same amount of smoothing whatever the number of rows. ``labels`` are 0 to
    ``num_classes - 1``. Rows are shared by all problems, or each problem brings its own. Parameters, values
    and sums over tiles are float64; logits are computed in the type of ``x``.
    """
    d = x.shape[-1]
    strengths = strengths.double()
    start = torch.zeros(len(strengths), num_classes * (d + 1), dtype=torch.float64, device=x.device)

    def evaluate(point: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = _objective(point.view(-1, num_classes, d + 1), x, labels, strengths)
        return value, gradient.flatten(start_dim=1)

    found = minimize(
        evaluate,
        start,
        precondition=_curvature_at_zero(x, strengths, num_classes),
        tolerance=TOLERANCE,
        max_evaluations=max_evaluations,
    )
    parameters = found.point.view(-1, num_classes, d + 1)
    return LogisticFit(parameters[:, :, :d], parameters[:, :, d], found.value, found.converged)


def _objective(
    parameters: Tensor, x: Tensor, labels: Tensor, strengths: Tensor
) -> tuple[Float[Tensor, " s"], Float[Tensor, "s c d_plus_1"]]:
    """Value and gradient; the last column of ``parameters`` is the bias."""
    weight, bias = parameters[:, :, :-1].to(x), parameters[:, :, -1:].to(x)
    n = x.shape[-2]
    value = torch.zeros_like(strengths)
    gradient = torch.zeros_like(parameters)
    rows_at_once = max(256, TILE_NUMBERS[x.device.type] // weight[:, :, 0].numel())
    for start in range(0, n, rows_at_once):
        rows = x[..., start : start + rows_at_once, :]
        label = labels[..., None, start : start + rows_at_once].expand(len(weight), -1, -1)
        logits = weight @ rows.mT + bias
        largest = logits.amax(dim=1, keepdim=True)
        right = logits.gather(1, label)
        exponential = logits.sub_(largest).exp_()
        total = exponential.sum(dim=1, keepdim=True)
        value += (total.log() + largest - right).sum(dim=(1, 2), dtype=torch.float64)
        residual = exponential.div_(total).scatter_add_(1, label, torch.full_like(right, -1.0))
        gradient[:, :, :-1] += residual @ rows
        gradient[:, :, -1] += residual.sum(dim=2)
    value = value / n + strengths / 2 * parameters[:, :, :-1].square().sum(dim=(1, 2))
    gradient /= n
    gradient[:, :, :-1] += strengths[:, None, None] * parameters[:, :, :-1]
    return value, gradient


def _curvature_at_zero(x: Tensor, strengths: Tensor, num_classes: int) -> Callable[[Tensor], Tensor]:
    """Inverse of the Hessian at zero weights, where it is covariance / c + strength on each class's weights."""
    if x.ndim == 3:
        return lambda gradient: gradient * num_classes
    d = x.shape[1]
    eigenvalues, basis = torch.linalg.eigh((x.T @ x).double() / len(x))
    curvature = eigenvalues.clamp(min=0) / num_classes + strengths[:, None, None]

    def apply(gradient: Tensor) -> Tensor:
        gradient = gradient.view(len(strengths), num_classes, d + 1)
        weight = (gradient[:, :, :d] @ basis / curvature) @ basis.T
        return torch.cat([weight, gradient[:, :, d:] * num_classes], dim=2).flatten(start_dim=1)

    return apply
