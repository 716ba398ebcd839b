"""Correlation congruence (Peng et al., ICCV 2019)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.precision import unit_rows
from ssl_transfer.losses.tiles import sum_over_anchors


def correlation_congruence(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    gamma: float = 0.4,
    order: int = 2,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Compare the correlations of all pairs under a Gaussian kernel (Peng et al., ICCV 2019).

        k(x, y) = sum_{p=0}^{order} exp(-2 gamma) (2 gamma)^p / p! (x . y)^p  ~  exp(-gamma |x - y|^2)
        L = (1/n^2) sum_ij ( k(s_i, s_j) - k(t_i, t_j) )^2,   rows of length one

    This is the paper's form. RepDistiller's multiplies the differences s - t of rows that follow each other in the
    batch, so it depends on their order and needs embeddings of the same width. ``anchors`` are the rows i whose terms
    this process computes, by default all.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; ``gamma`` or ``order`` is not
            positive; or ``anchors`` is no contiguous part of the batch.
    """
    check_pair(student, teacher)
    check_positive(gamma=gamma, order=order)
    n = len(student)
    ours, theirs = unit_rows(student), unit_rows(teacher.detach())
    coefficients = [math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in range(order + 1)]

    def kernel(rows: slice, x: Tensor) -> Tensor:
        cosine = x[rows] @ x.T
        value = torch.full_like(cosine, coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = value * cosine + coefficient
        return value

    def term(rows: slice, ours: Tensor) -> Tensor:
        return (kernel(rows, ours) - kernel(rows, theirs)).square().sum()

    return sum_over_anchors(term, anchors, n, ours) / n**2
