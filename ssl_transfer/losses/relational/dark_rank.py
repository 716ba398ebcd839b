"""DarkRank (Chen et al., AAAI 2018): the order of the neighbors."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.distances import distance_tile, points_of
from ssl_transfer.losses.precision import unit_rows
from ssl_transfer.losses.tiles import sum_over_anchors


def dark_rank(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    alpha: float = 3.0,
    beta: float = 3.0,
    length: int = 4,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Make the order of the teacher's nearest neighbors likely under the student (Chen et al., hard form).

    With score_ij = -alpha |s_i - s_j|^beta, rows of length one, and j_1 to j_length the rows that are nearest to row i
    for the teacher:

        L = -(1/n) sum_i sum_m [ score_{i j_m} - log sum_{m' >= m} exp score_{i j_m'} ]

    This is the ranking term alone, to which the authors add a triplet loss on labels. Rows that are equally near for
    the teacher are ranked in any order. ``anchors`` are the rows i whose terms this process computes, by default all.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; ``alpha`` or ``length`` is not
            positive, ``beta`` is below 1 or ``length`` is not below the number of rows; or ``anchors`` is no contiguous
            part of the batch.
    """
    check_pair(student, teacher)
    check_positive(alpha=alpha, length=length)
    n = len(student)
    if beta < 1:
        raise ValueError(f"beta={beta} must be at least 1: below, the gradient is infinite at a distance of zero.")
    if n <= length:
        raise ValueError(f"length={length} neighbors cannot be ranked in a batch of {n} rows: use a smaller length.")
    ours, theirs = unit_rows(student), points_of(unit_rows(teacher.detach()))

    def term(rows: slice, ours: Tensor) -> Tensor:
        distance, _ = distance_tile(rows, theirs)
        distance[:, rows].fill_diagonal_(torch.inf)
        nearest = distance.topk(length, dim=1, largest=False).indices
        apart = torch.linalg.vector_norm(ours[rows, None] - ours[nearest], dim=2)
        score = -alpha * apart**beta
        rest = score.flip(1).logcumsumexp(dim=1).flip(1)
        return (rest - score).sum()

    return sum_over_anchors(term, anchors, n, ours) / n
