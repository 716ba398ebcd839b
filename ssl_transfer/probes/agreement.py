"""How much of the teacher's geometry the student has kept, measured without labels."""

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import pdist

from ssl_transfer.probes.checks import check_same_images
from ssl_transfer.probes.nearest_neighbors import Metric, nearest
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.scaling import rescaled, scale_of, unit_rows
from ssl_transfer.probes.splits import shuffled

# 2,000 rows have two million pairs, enough for three digits of a rank correlation.
SPEARMAN_ROWS = 2000


@dataclass(frozen=True)
class Agreement:
    """Three measures of the same, each 1 for a student that is a rotated and scaled copy of its teacher."""

    neighbor_overlap: float
    linear_cka: float
    distance_spearman: float
    k: int
    metric: Metric
    n: int
    seed: int


def agreement(
    student: Float[Tensor, "n d_student"], teacher: Float[Tensor, "n_teacher d_teacher"], *, k: int = 10, seed: int = 0
) -> Agreement:
    """Neighbor overlap, linear CKA and Spearman's correlation of distances, of the same images in the same order.

    ``k`` is the number of neighbors; ``seed`` draws the images whose distances are ranked. See
    :func:`neighbor_overlap`, :func:`linear_cka` and :func:`distance_spearman`.

    Raises:
        ValueError: as any of the three does.
    """
    return Agreement(
        neighbor_overlap=neighbor_overlap(student, teacher, k=k),
        linear_cka=linear_cka(student, teacher),
        distance_spearman=distance_spearman(student, teacher, seed=seed),
        k=k,
        metric="cosine",
        n=len(student),
        seed=seed,
    )


def neighbor_overlap(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n_teacher d_teacher"],
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> float:
    """The share of an image's ``k`` nearest others that student and teacher have in common, averaged over images.

    ``metric`` says what is near. For unrelated embeddings it is k / (n - 1).

    Raises:
        ValueError: student and teacher have different numbers of rows, or rows that are not finite; or ``k`` is below 1
            or above n - 1.
    """
    check_same_images(student, teacher)
    shared = 0
    searches = (nearest(x, x, k, metric=metric, exclude_self=True) for x in (student, teacher))
    for by_student, by_teacher in zip(*searches, strict=True):
        # Each index occurs once per search, so a shared one stands twice in a row after sorting.
        both = torch.cat([by_student.index, by_teacher.index], dim=1).sort(dim=1).values
        shared += int((both[:, 1:] == both[:, :-1]).sum())
    return shared / (k * len(student))


@torch.no_grad()
def linear_cka(student: Float[Tensor, "n d_student"], teacher: Float[Tensor, "n_teacher d_teacher"]) -> float:
    """Linear centered kernel alignment (Kornblith et al., "Similarity of neural network representations", ICML 2019).

    |S^T T|^2 / (|S^T S| |T^T T|) in Frobenius norms, where the column means of S and T are zero. It is biased upwards
    where images are fewer than dimensions.

    Raises:
        ValueError: student and teacher have different numbers of rows, or rows that are not finite; or all rows of one
            of them are equal.
    """
    check_same_images(student, teacher)
    of_student, of_teacher = _centered(student), _centered(teacher)
    if len(student) < max(student.shape[1], teacher.shape[1]):  # the same numbers by smaller matrices, of n x n
        by_student, by_teacher = (rows[:] @ rows[:].T for rows in (of_student, of_teacher))
        shared = (by_student * by_teacher).sum()
    else:
        parts = max(of_student.slices(), of_teacher.slices(), key=len)
        by_student, by_teacher, by_both = (
            reduce(torch.add, (first[part].T @ second[part] for part in parts))
            for first, second in ((of_student, of_student), (of_teacher, of_teacher), (of_student, of_teacher))
        )
        shared = by_both.square().sum()
    own = by_student.norm() * by_teacher.norm()
    if own == 0:
        raise ValueError("linear CKA is undefined where all rows are equal; one of the two models has collapsed.")
    return (shared / own).item()


@torch.no_grad()
def distance_spearman(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n_teacher d_teacher"],
    *,
    metric: Metric = "cosine",
    max_rows: int = SPEARMAN_ROWS,
    seed: int = 0,
) -> float:
    """Spearman's rank correlation between the student's and the teacher's distances of all pairs of images.

    Distances are Euclidean, of rows brought to length one where ``metric`` is cosine. Of more than ``max_rows`` images,
    ``max_rows`` are drawn, which are a function of ``seed``.

    Raises:
        ValueError: student and teacher have different numbers of rows, rows that are not finite or fewer than three of
            them; or all distances of one of them are equal.
    """
    check_same_images(student, teacher)
    if len(student) < 3:
        raise ValueError(f"there are {len(student)} images but a rank correlation of distances needs 3 or more.")
    rows = shuffled(len(student), seed)[:max_rows].sort().values.to(student.device)
    distances = [_distances(x[rows].double(), metric).cpu().numpy() for x in (student, teacher)]
    if any(np.ptp(d) == 0 for d in distances):
        raise ValueError("all distances are equal, so they have no order; one of the two models has collapsed.")
    return float(spearmanr(*distances).statistic)


def retention(student_score: float, teacher_score: float) -> float:
    """The share of the teacher's score that the student has kept; it is 1 or more if the student is as good.

    Raises:
        ValueError: the teacher's score is not positive.
    """
    if teacher_score <= 0:
        raise ValueError(f"the teacher's score is {teacher_score}; retention needs one above 0.")
    return student_score / teacher_score


def _centered(x: Float[Tensor, "n d"]) -> Rows:
    """``x`` less its mean in float64; exactly zero where all rows are equal but for the rounding of the mean."""
    rows = Rows(x, change=torch.Tensor.double)
    scale = scale_of(rows.extremes())
    rows = rows.changed(lambda part: rescaled(part, scale))
    mean = rows.average(lambda part: part.mean(dim=0))
    centered = rows.changed(lambda part: part - mean)
    rounding = len(x) * torch.finfo(rows.dtype).eps * rows.extremes().abs().max()
    return centered if centered.extremes().abs().max() > rounding else centered.changed(torch.zeros_like)


def _distances(x: Float[Tensor, "n d"], metric: Metric) -> Float[Tensor, " pairs"]:
    # Distances of rows of norm one rank pairs as their cosines do, from the largest to the smallest.
    return pdist(unit_rows(x) if metric == "cosine" else rescaled(x))
