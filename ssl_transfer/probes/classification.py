"""How good a trained classifier is: accuracy, and whether it is right as often as it says."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_labeled


@dataclass(frozen=True)
class ClassificationScores:
    """Top-1 and top-5 accuracy and the expected calibration error, all in [0, 1]."""

    top1: float
    top5: float
    calibration_error: float


def classification(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n_labels"], *, bins: int = 15
) -> ClassificationScores:
    """Top-1 and top-5 accuracy and calibration error of logits; with five classes or fewer, top-5 is 1.

    ``bins`` are those of :func:`expected_calibration_error`.

    Raises:
        ValueError: rows are not finite or have no label, a label is of no class of the classifier, or ``bins`` is below
            1.
    """
    check_labeled(logits, labels, "test")
    check_known(labels, logits.shape[1])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = best == labels[:, None]
    return ClassificationScores(
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(dim=1).double().mean().item(),
        calibration_error=expected_calibration_error(logits, labels, bins=bins),
    )


def check_known(labels: Int64[Tensor, " n"], classes: int) -> None:
    """Refuse labels that a classifier of that number of classes cannot give.

    Raises:
        ValueError: the largest label, and the number of classes.
    """
    if labels.max() >= classes:
        raise ValueError(
            f"test_y has the label {labels.max().item()} but the classifier knows only {classes} classes; "
            "score it on images of the classes that it was trained on."
        )


def expected_calibration_error(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n_labels"], *, bins: int = 15
) -> float:
    """How far confidence is from accuracy (Guo et al., "On calibration of modern neural networks", ICML 2017).

        ECE = sum_b (n_b / n) |accuracy_b - confidence_b|

    The confidence of a row is the largest of its softmax probabilities. Rows are sorted by it into ``bins`` intervals
    (l, u] of equal width.

    Raises:
        ValueError: rows are not finite or have no label, or ``bins`` is below 1.
    """
    check_labeled(logits, labels, "test")
    if bins < 1:
        raise ValueError(f"bins is {bins}: give at least 1.")
    confidence, guess = logits.double().softmax(dim=1).max(dim=1)
    place = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gap = (guess == labels).double() - confidence  # summed over a bin: n_b (accuracy - confidence)
    return gap.new_zeros(bins).index_add(0, place, gap).abs().sum().item() / len(logits)
