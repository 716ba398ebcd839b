"""Similarity-preserving distillation (Tung and Mori, ICCV 2019)."""

from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.precision import unit_rows, widen
from ssl_transfer.losses.tiles import sum_over_anchors


def similarity_preserving(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Compare the rows of the two Gram matrices, each row brought to length one (Tung and Mori, eq. 2-4).

        L = (1/n^2) sum_i | normalize(s_i . s_1 .. s_i . s_n) - normalize(t_i . t_1 .. t_i . t_n) |^2

    The caller flattens feature maps to rows. ``anchors`` are the rows i whose terms this process computes, by default
    all.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; or ``anchors`` is no
            contiguous part of the batch.
    """
    check_pair(student, teacher)
    n = len(student)
    student, teacher = widen(student), widen(teacher.detach())

    def term(rows: slice, student: Tensor) -> Tensor:
        return (unit_rows(student[rows] @ student.T) - unit_rows(teacher[rows] @ teacher.T)).square().sum()

    return sum_over_anchors(term, anchors, n, student) / n**2
