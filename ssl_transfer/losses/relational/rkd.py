"""Relational knowledge distillation (Park et al., CVPR 2019): distances of pairs and angles of triplets."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.distances import euclidean
from ssl_transfer.losses.precision import widen
from ssl_transfer.losses.tiles import sum_over_anchors, tile_rows


def rkd_distance(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Compare pairwise distances of student and teacher, each divided by its mean (Park et al., CVPR 2019).

        L = (1/n^2) sum_ij huber( |s_i - s_j| / mean |s| - |t_i - t_j| / mean |t| )

    Each mean is over the n (n - 1) pairs of different rows, and the gradient flows through that of the student. Every
    process computes both means over all rows; only the terms are divided among processes, by ``anchors``, the rows i
    whose terms this process computes.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; or ``anchors`` is no
            contiguous part of the batch.
    """
    check_pair(student, teacher)
    n = len(student)
    student, teacher = widen(student), widen(teacher.detach())
    student_mean, teacher_mean = mean_distance(student), mean_distance(teacher)

    def term(rows: slice, student: Tensor, student_mean: Tensor) -> Tensor:
        ours, theirs = euclidean(rows, student) / student_mean, euclidean(rows, teacher) / teacher_mean
        return smooth_l1_loss(ours, theirs, reduction="sum")

    return sum_over_anchors(term, anchors, n, student, student_mean) / n**2


def rkd(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    distance_weight: float,
    angle_weight: float,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """The weighted sum of :func:`rkd_distance` and :func:`rkd_angle`.

    Raises:
        ValueError: as either of them does.
    """
    by_distance = rkd_distance(student, teacher, anchors=anchors)
    return distance_weight * by_distance + angle_weight * rkd_angle(student, teacher, anchors=anchors)


def mean_distance(x: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """The mean distance between two different rows, or one if all rows are equal."""
    n = len(x)
    total = sum_over_anchors(lambda rows, x: euclidean(rows, x).sum(), None, n, x)
    return (total / max(n * (n - 1), 1)).where(total > 0, 1)


def rkd_angle(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Compare the cosines of the angles of all triplets, vertex by vertex (Park et al., CVPR 2019).

        L = (1/n^3) sum_ijk huber( cos(s_j - s_i, s_k - s_i) - cos(t_j - t_i, t_k - t_i) )

    Takes O(n^3 d) operations, and O(n^2) memory whatever the number of anchors. ``anchors`` are the vertices i whose
    terms this process computes, by default all.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; or ``anchors`` is no
            contiguous part of the batch.
    """
    check_pair(student, teacher)
    n = len(student)
    student, teacher = widen(student), widen(teacher.detach())

    def term(rows: slice, student: Tensor) -> Tensor:
        ours, theirs = _directions(rows, student), _directions(rows, teacher)
        return smooth_l1_loss(ours @ ours.mT, theirs @ theirs.mT, reduction="sum")

    widest = max(n, student.shape[1], teacher.shape[1])
    vertices = max(1, tile_rows(n, student.device) // widest)
    return sum_over_anchors(term, anchors, n, student, tile=vertices) / n**3


def _directions(rows: slice, x: Float[Tensor, "n d"]) -> Float[Tensor, "t n d"]:
    """Unit vectors from the vertices ``rows`` to all rows, zero with gradient zero where two coincide."""
    difference = x - x[rows, None]
    squared = difference.square().sum(dim=2, keepdim=True)
    return difference * torch.where(squared > 0, squared.where(squared > 0, 1).rsqrt(), 0)
