"""The linear probe: how much a straight cut through frozen features can tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_splits
from ssl_transfer.probes.logistic import fit_logistic
from ssl_transfer.probes.splits import held_out_tenth

# Ten strengths, evenly spaced in their logarithm, from next to no penalty to one that all but mutes the
# features.
DEFAULT_GRID = tuple(10 ** (-6 + 6 * step / 9) for step in range(10))


@dataclass(frozen=True)
class LinearProbeResult:
    """A linear probe's score and everything that was chosen on the way to it."""

    accuracy: float
    strength: float
    held_out_accuracy: dict[float, float]
    converged: bool
    n_train: int
    n_held_out: int
    n_test: int
    seed: int

    @property
    def at_grid_edge(self) -> bool:
        """Whether the best strength is the smallest or largest offered, so that a wider grid may do better."""
        return self.strength in (min(self.held_out_accuracy), max(self.held_out_accuracy))


def linear_probe(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    test_y: Int64[Tensor, " n_test"],
    *,
    seed: int = 0,
    strengths: Sequence[float] = DEFAULT_GRID,
) -> LinearProbeResult:
    """Test accuracy of multinomial logistic regression on standardised features.

    Every strength (see :func:`fit_logistic` for its relation to scikit-learn's C) is fitted on nine tenths
    of each class of the training split and scored on the tenth held out, which ``seed`` picks; the best, on
    a tie the strongest, is fitted again on the whole training split and scored on the test split, once.
    Mean and standard deviation are those of the training part of each fit.
    """
    check_splits(train_x, train_y, test_x, test_y)
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths are {list(strengths)}; give one or more positive numbers.")
    held_out = held_out_tenth(train_y, seed=seed)
    if not held_out.any():
        raise ValueError(
            "every class has a single training image, so none can be held out to choose the strength; "
            "give two images of some class, or use few_shot, which has a fixed strength."
        )
    grid = torch.tensor(sorted(strengths), dtype=torch.float64, device=train_x.device)
    on_held_out, _ = _accuracy(
        train_x[~held_out], train_y[~held_out], train_x[held_out], train_y[held_out], grid
    )
    best = max(range(len(grid)), key=lambda i: (on_held_out[i], i))
    (accuracy,), converged = _accuracy(train_x, train_y, test_x, test_y, grid[best : best + 1])
    return LinearProbeResult(
        accuracy=accuracy,
        strength=grid[best].item(),
        held_out_accuracy=dict(zip(grid.tolist(), on_held_out, strict=True)),
        converged=converged,
        n_train=len(train_x),
        n_held_out=int(held_out.sum()),
        n_test=len(test_x),
        seed=seed,
    )


def standardize(
    train_x: Float[Tensor, "n_train d"], *others: Float[Tensor, "n_other d"]
) -> tuple[Float[Tensor, "n d"], ...]:
    """All splits with the mean and standard deviation of the first; a constant feature becomes zero there."""
    deviation, mean = torch.std_mean(train_x.float(), dim=0, correction=0)
    constant = deviation <= 1e-6 * mean.abs()
    scale = torch.where(constant, 1.0, deviation)
    return tuple((x - mean) / scale for x in (train_x, *others))


def _accuracy(
    fit_x: Tensor, fit_y: Tensor, score_x: Tensor, score_y: Tensor, strengths: Tensor
) -> tuple[list[float], bool]:
    """Accuracy at each strength, and whether all fits converged."""
    classes, code = fit_y.unique(return_inverse=True)
    fit_x, score_x = standardize(fit_x, score_x)
    fit = fit_logistic(fit_x, code, strengths, num_classes=len(classes))
    correct = classes[fit.predict(score_x)] == score_y
    return correct.double().mean(dim=1).tolist(), bool(fit.converged.all())
