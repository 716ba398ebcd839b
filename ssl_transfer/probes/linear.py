"""The linear probe: how much a straight cut through frozen features can tell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_splits
from ssl_transfer.probes.logistic import LogisticFit, fit_path
from ssl_transfer.probes.scaling import floating, rescaled, scale_of
from ssl_transfer.probes.splits import held_out_tenth

# Tables of at most this many numbers are fitted in float64: it costs next to nothing there.
SMALL = 1 << 21
# Ten strengths, evenly spaced in their logarithm, from next to no penalty to one that all but mutes the
# features.
DEFAULT_GRID = tuple(10 ** (-5 + 5 * step / 9) for step in range(10))


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
    normalization: str = "standardized"

    @property
    def at_grid_edge(self) -> bool:
        """Whether the best strength is the smallest or largest offered, so that a wider grid may do better."""
        return self.strength in (min(self.held_out_accuracy), max(self.held_out_accuracy))


@torch.no_grad()
def linear_probe(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    test_y: Int64[Tensor, " n_test"],
    *,
    seed: int = 0,
    strengths: Sequence[float] = DEFAULT_GRID,
) -> LinearProbeResult:
    """Test accuracy of multinomial logistic regression on standardized features.

    Every strength (see :func:`fit_path` for its relation to scikit-learn's C) is fitted on nine tenths
    of each class of the training split and scored on the tenth held out, which ``seed`` picks; the best, on
    a tie the strongest, is fitted again on the whole training split and scored on the test split, once.
    Mean and standard deviation are those of the training part of each fit.
    """
    check_splits(train_x, train_y, test_x, test_y)
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths are {list(strengths)}; give one or more positive numbers.")
    held_out = held_out_tenth(train_y, seed=seed)
    refuse_single_images(held_out)
    grid = torch.tensor(sorted(strengths), dtype=torch.float64, device=train_x.device)
    fits = _fit(train_x[~held_out], train_y[~held_out], grid)
    held_out_accuracy = _accuracy(fits, train_x[held_out], train_y[held_out])
    best = max(range(len(grid)), key=lambda i: (held_out_accuracy[i], i))
    final = _fit(train_x, train_y, grid[best : best + 1], start=fits.classifiers.parameters[best])
    return LinearProbeResult(
        accuracy=_accuracy(final, test_x, test_y)[0],
        strength=grid[best].item(),
        held_out_accuracy=dict(zip(grid.tolist(), held_out_accuracy, strict=True)),
        converged=bool(fits.classifiers.converged.all() and final.classifiers.converged.all()),
        n_train=len(train_x),
        n_held_out=int(held_out.sum()),
        n_test=len(test_x),
        seed=seed,
    )


def refuse_single_images(held_out: Bool[Tensor, " n"]) -> None:
    """Refuse to choose where every class has one image and none could be held out."""
    if not held_out.any():
        raise ValueError(
            "every class has a single training image, so none can be held out to choose a setting; "
            "give two images of some class, or use few_shot, which has a fixed one."
        )


@dataclass(frozen=True)
class _Fits:
    """Classifiers on standardized features, with what it takes to standardize others the same way."""

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    classes: Int64[Tensor, " c"]
    classifiers: LogisticFit


def _fit(x: Tensor, y: Tensor, strengths: Tensor, start: Tensor | None = None) -> _Fits:
    x = x.double() if x.numel() <= SMALL else floating(x)
    mean, scale = standardization(x)
    rows = (x - mean) / scale
    rows = rows if x.numel() <= SMALL else rows.float()
    classes, code = y.unique(return_inverse=True)
    classifiers = fit_path(rows, code, strengths, num_classes=len(classes), start=start)
    return _Fits(mean, scale, classes, classifiers)


def _accuracy(fits: _Fits, x: Tensor, y: Tensor) -> list[float]:
    predicted = fits.classes[fits.classifiers.predict((x.to(fits.mean) - fits.mean) / fits.scale)]
    return (predicted == y).double().mean(dim=1).tolist()


def standardization(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of each feature, the deviation infinite where the feature is constant.

    So a constant feature becomes zero, also in rows where it has another value: nothing is known of its scale.
    """
    scale = scale_of(x, dim=0)
    deviation, mean = torch.std_mean(rescaled(x, scale), dim=0, correction=0)
    # The mean of equal numbers can be off by a rounding error, which must not be blown up.
    constant = deviation <= 10 * torch.finfo(x.dtype).eps * mean.abs()
    return mean * scale[0], torch.where(constant, torch.inf, deviation * scale[0])
