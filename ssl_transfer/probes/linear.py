"""The linear probe: how well a linear classifier of frozen features does."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_splits
from ssl_transfer.probes.logistic import LogisticFit, fit_path
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.scaling import floating, rescaled, scale_of
from ssl_transfer.probes.splits import held_out_tenth

# Tables of at most this many numbers are fitted in float64: it costs next to nothing there.
SMALL = 1 << 21
# Ten strengths, evenly spaced in their logarithm, from next to no penalty to one under which features hardly count.
DEFAULT_GRID = tuple(10 ** (-5 + 5 * step / 9) for step in range(10))


@dataclass(frozen=True)
class LinearProbeResult:
    """The accuracy of a linear probe, and everything that was chosen for it; ``predicted`` is each test row's class."""

    accuracy: float
    strength: float
    held_out_accuracy: dict[float, float]
    converged: bool
    n_train: int
    n_held_out: int
    n_test: int
    seed: int
    predicted: Int64[Tensor, " n_test"] = field(repr=False, compare=False)
    normalization: str = "standardized"

    @property
    def at_grid_edge(self) -> bool:
        """Whether the chosen strength is the smallest or the largest, so that a wider grid might do better."""
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

    Every one of ``strengths`` of the L2 penalty is fitted on nine tenths of each class of the training split and judged
    on the tenth that is held out, which is a function of ``seed``. The highest accuracy wins, among equals the lowest
    cross-entropy, and then the largest strength. It is fitted again on the whole training split and scored on the test
    split, once. Features are standardized by the mean and standard deviation of the rows that a fit sees. A strength is
    1 / (C n) with scikit-learn's C and n rows (see :func:`ssl_transfer.probes.logistic.fit_path`).

    Raises:
        ValueError: the splits cannot be scored against each other, a strength is not positive, or every class has a
            single training image.
    """
    check_splits(train_x, train_y, test_x, test_y)
    if not strengths or min(strengths) <= 0:
        raise ValueError(f"strengths are {list(strengths)}; give one or more positive numbers.")
    held_out = held_out_tenth(train_y, seed=seed)
    refuse_single_images(held_out)
    grid = torch.tensor(sorted(strengths), dtype=torch.float64, device=train_x.device)
    fits = _fit(Rows(train_x, (~held_out).nonzero()[:, 0]), train_y[~held_out], grid)
    unseen = Rows(train_x, held_out.nonzero()[:, 0])
    judged = judge_each(fits.logits, unseen, fits.classes, train_y[held_out])
    best = max(range(len(grid)), key=lambda i: (judged[i], i))
    final = _fit(Rows(train_x), train_y, grid[best : best + 1], start=fits.classifiers.parameters[best])
    predicted = predict(final.logits, Rows(test_x), final.classes)
    return LinearProbeResult(
        accuracy=top_1(predicted, test_y),
        strength=grid[best].item(),
        held_out_accuracy={strength: accuracy for strength, (accuracy, _) in zip(grid.tolist(), judged, strict=True)},
        converged=bool(fits.classifiers.converged.all() and final.classifiers.converged.all()),
        n_train=len(train_x),
        n_held_out=int(held_out.sum()),
        n_test=len(test_x),
        seed=seed,
        predicted=predicted,
    )


def refuse_single_images(held_out: Bool[Tensor, " n"]) -> None:
    """Refuse to choose a setting where every class has a single image, so that none is held out.

    Raises:
        ValueError: no row is held out.
    """
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

    def logits(self, x: Float[Tensor, "n d"]) -> Iterator[Float[Tensor, "n c"]]:
        """What each classifier in turn says of every row."""
        return self.classifiers.logits((x.to(self.mean) - self.mean) / self.scale)


def _fit(x: Rows, y: Tensor, strengths: Tensor, start: Tensor | None = None) -> _Fits:
    small = math.prod(x.shape) <= SMALL
    x = x.changed(torch.Tensor.double if small else floating)
    mean, scale = standardization(x)
    rows = x.changed(lambda part: (part - mean) / scale if small else ((part - mean) / scale).float())
    classes, code = y.unique(return_inverse=True)
    classifiers = fit_path(rows, code, strengths, num_classes=len(classes), start=start)
    return _Fits(mean, scale, classes, classifiers)


def top_1(predicted: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]) -> float:
    """The share of rows that are classified rightly."""
    return (predicted == labels).double().mean().item()


# What classifiers say of rows, one after another.
Logits = Callable[[Float[Tensor, "n d"]], Iterable[Float[Tensor, "n c"]]]


def predict(logits: Logits, rows: Rows, classes: Int64[Tensor, " c"]) -> Int64[Tensor, " n"]:
    """The class that the first of the classifiers gives each row."""
    return classes[torch.cat([next(iter(logits(part))).argmax(dim=1) for part in rows.parts()])]


def judge(
    logits: Float[Tensor, "n c"], classes: Int64[Tensor, " c"], labels: Int64[Tensor, " n"]
) -> tuple[float, float]:
    """Accuracy and minus the mean cross-entropy of a classifier, so that the better of two is the larger pair.

    A few rows leave many classifiers with the same accuracy; how sure they are of the right class tells them apart.
    """
    return top_1(classes[logits.argmax(dim=1)], labels), _sureness(logits, torch.searchsorted(classes, labels))


def judge_each(
    logits: Logits,
    rows: Rows,
    classes: Int64[Tensor, " c"],
    labels: Int64[Tensor, " n"],
    *,
    score: Callable[[Tensor, Tensor], float] = top_1,
) -> list[tuple[float, float]]:
    """What :func:`judge` says of each classifier, or another ``score`` of the classes that it gives the rows.

    Of rows of another class than ``classes`` nothing is known: they count in the score alone.
    """
    known = torch.isin(labels, classes)
    targets = torch.searchsorted(classes, labels).where(known, -100)  # which cross_entropy leaves out
    found = [
        [(one.argmax(dim=1), _sureness(one, targets[part])) for one in logits(rows[part])] for part in rows.slices()
    ]
    shares = [(known[part].sum() / known.sum().clamp(min=1)).item() for part in rows.slices()]
    judged = []
    for of_one in zip(*found, strict=True):
        predicted = classes[torch.cat([code for code, _ in of_one])]
        sure = sum((share * value for share, (_, value) in zip(shares, of_one, strict=True) if share > 0), 0.0)
        judged.append((score(predicted, labels), sure))
    return judged


def _sureness(logits: Float[Tensor, "n c"], targets: Int64[Tensor, " n"]) -> float:
    cross_entropy = F.cross_entropy(logits.double(), targets).item()
    return -cross_entropy if math.isfinite(cross_entropy) else -math.inf


def standardization(rows: Rows) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of each feature, the deviation infinite where the feature is constant.

    So a constant feature becomes zero, also in rows where it has another value: nothing is known of its scale.
    """
    scale = scale_of(rows.extremes(), dim=0)
    moments = [torch.std_mean(rescaled(part, scale), dim=0, correction=0) for part in rows.parts()]
    deviations, means = (torch.stack(values) for values in zip(*moments, strict=True))
    share = rows.shares().to(means)[:, None]
    mean = (share * means).sum(dim=0)
    deviation = (share * (deviations.square() + (means - mean).square())).sum(dim=0).sqrt()
    # The mean of equal numbers can be off by a rounding error, which must not be blown up.
    constant = deviation <= 10 * torch.finfo(mean.dtype).eps * mean.abs()
    return mean * scale[0], torch.where(constant, torch.inf, deviation * scale[0])
