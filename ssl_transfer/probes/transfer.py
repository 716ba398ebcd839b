"""The linear probe of transfer benchmarks: logistic regression on features as they are, over 45 penalties."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_splits
from ssl_transfer.probes.linear import SMALL, judge_each, predict, refuse_single_images, top_1
from ssl_transfer.probes.logistic import LogisticFit, fit_path
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.scaling import floating, scale_of
from ssl_transfer.probes.splits import held_out_share

# 45 penalties, evenly spaced in their logarithm from 1e-6 to 1e5.
PENALTIES = tuple(10 ** (-6 + 11 * step / 44) for step in range(45))
FIFTH = 5

Measure = Literal["top-1", "mean per class"]


@dataclass(frozen=True)
class TransferProbeResult:
    """The score of a probe, and everything that was chosen for it.

    ``penalty`` is that of the weights against the sum of cross-entropies, 1 / C of scikit-learn; ``held_out`` has what
    each penalty scored on the held-out rows, ``predicted`` the class of each test row, None where rows are of several
    classes at once.
    """

    score: float
    measure: str
    penalty: float
    held_out: dict[float, float]
    converged: bool
    n_train: int
    n_held_out: int
    n_test: int
    predicted: Int64[Tensor, " n_test"] | None = field(default=None, repr=False, compare=False)
    normalization: str = "none"

    @property
    def at_grid_edge(self) -> bool:
        """Whether the chosen penalty is the smallest or the largest, so that a wider grid might do better."""
        return self.penalty in (min(self.held_out), max(self.held_out))


@torch.no_grad()
def transfer_probe(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    test_y: Int64[Tensor, " n_test"],
    *,
    held_out: Bool[Tensor, " n_train"] | None = None,
    measure: Measure = "top-1",
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> TransferProbeResult:
    """Test score of multinomial logistic regression on features as they are, the protocol of transfer benchmarks.

    It is that of Kornblith, Shlens and Le ("Do better ImageNet models transfer better?", CVPR 2019, appendix), which
    SimCLR, BYOL and DINOv2 follow: each of 45 L2 penalties is fitted on the rows that are not ``held_out`` and judged
    on those that are; the best is fitted again on all training rows and scored on the test split, once. ``held_out``
    are the rows of a predefined validation split; without one, a fifth of each class as ``seed`` draws it. A penalty
    stands against the sum of the rows' cross-entropies, so it is 1 / C of scikit-learn's LogisticRegression, as in the
    evaluation of Ericsson, Gouk and Hospedales (CVPR 2021). Fits end at the optimum, where that evaluation stops after
    100 iterations. Among penalties with the same score the one with the lowest cross-entropy wins, and then the
    largest.

    ``measure`` is what is scored and chosen by: the share of rows that are classified rightly, or the mean over classes
    of that share.

    Raises:
        ValueError: the splits cannot be scored against each other, a penalty is not positive, or all rows or none are
            held out.
    """
    check_splits(train_x, train_y, test_x, test_y)
    check_penalties(penalties)
    if held_out is None:
        held_out = held_out_share(train_y, FIFTH, seed=seed)
        refuse_single_images(held_out)
    check_held_out(held_out)
    score = SCORES[measure]
    grid = sorted(penalties)
    fits = _fit(Rows(train_x, (~held_out).nonzero()[:, 0]), train_y[~held_out], grid)
    unseen = Rows(train_x, held_out.nonzero()[:, 0])
    judged = judge_each(fits.logits, unseen, fits.classes, train_y[held_out], score=score)
    best = max(range(len(grid)), key=lambda i: (judged[i], i))
    final = _fit(Rows(train_x), train_y, grid[best : best + 1])
    predicted = predict(final.logits, Rows(test_x), final.classes)
    return TransferProbeResult(
        score=score(predicted, test_y),
        measure=measure,
        penalty=grid[best],
        held_out={penalty: value for penalty, (value, _) in zip(grid, judged, strict=True)},
        converged=bool(fits.classifiers.converged.all() and final.classifiers.converged.all()),
        n_train=len(train_y),
        n_held_out=int(held_out.sum()),
        n_test=len(test_y),
        predicted=predicted,
    )


def mean_per_class(predicted: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]) -> float:
    """The mean over the classes of ``labels`` of the share of their rows that are classified rightly."""
    _, code, sizes = labels.unique(return_inverse=True, return_counts=True)
    right = torch.zeros_like(sizes).scatter_add_(0, code, (predicted == labels).long())
    return (right.double() / sizes).mean().item()


SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {"top-1": top_1, "mean per class": mean_per_class}


def check_penalties(penalties: Sequence[float]) -> None:
    """Refuse an empty grid and penalties that are not positive.

    Raises:
        ValueError: the penalties.
    """
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties are {list(penalties)}; give one or more positive numbers.")


def check_held_out(held_out: Tensor) -> None:
    """Refuse to choose a penalty without rows to fit on, or without rows to judge by.

    Raises:
        ValueError: all rows are held out, or none is.
    """
    if held_out.all() or not held_out.any():
        raise ValueError(
            f"{int(held_out.sum())} of {len(held_out)} training rows are held out; hold out some, and fit on others."
        )


@dataclass(frozen=True)
class Centered:
    """Features moved to mean zero and brought to an ordinary size by one number, which changes no regression.

    A bias that is not penalized takes up the mean, and a penalty is that of the features as they were once it is
    divided by the square of ``size``. What changes is how soon a fit ends.
    """

    mean: Float[Tensor, " d"]
    size: float
    wide: bool  # float64 for small tables: it costs next to nothing there

    @classmethod
    def of(cls, x: Rows) -> "Centered":
        """The mean and the size of these rows."""
        power = scale_of(floating(x.extremes()))[0, 0].double()  # so that no square is too large or small for float64
        rows = x.changed(lambda part: part.double() / power)
        mean = rows.average(lambda part: part.mean(dim=0))
        size = rows.average(lambda part: (part - mean).square().mean()).sqrt()
        return cls(mean * power, (size * power).item() if size > 0 else 1.0, math.prod(x.shape) <= SMALL)

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The rows so moved."""
        rows = x.double() if self.wide or x.dtype == torch.float64 else floating(x)
        rows = (rows - self.mean.to(rows)) / self.size
        return rows if self.wide else rows.float()

    def strengths(self, penalties: Sequence[float], n: int) -> Float[Tensor, " s"]:
        """Penalties against a sum over ``n`` rows as strengths against their mean, in this size."""
        return torch.tensor(penalties, dtype=torch.float64, device=self.mean.device) / n / self.size**2


@dataclass(frozen=True)
class _Fits:
    centered: Centered
    classes: Int64[Tensor, " c"]
    classifiers: LogisticFit

    def logits(self, x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "n c"]]:
        return self.classifiers.logits(self.centered(x))


def _fit(x: Rows, y: Tensor, penalties: Sequence[float]) -> _Fits:
    centered = Centered.of(x)
    classes, code = y.unique(return_inverse=True)
    strengths = centered.strengths(penalties, len(x))
    return _Fits(centered, classes, fit_path(x.changed(centered), code, strengths, num_classes=len(classes)))
