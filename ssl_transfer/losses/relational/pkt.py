"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.checks import check_pair
from ssl_transfer.losses.precision import widen
from ssl_transfer.losses.tiles import sum_over_anchors

EPSILON = 1e-7  # the authors' constant, in both of its places: with small n it shows in the ninth digit


def pkt(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Compare the probabilities that each row picks every other, by cosine similarity (Passalis and Tefas, ECCV 2018).

        p_ij = (cos_ij + 1) / sum_k (cos_ik + 1)
        L = (1/n^2) sum_ij p^t_ij log( (p^t_ij + 1e-7) / (p^s_ij + 1e-7) )

    The mean over n^2 small numbers is near 1e-4: give it a large weight with an optimizer to which the scale of a loss
    matters. ``anchors`` are the rows i whose terms this process computes, by default all.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; or ``anchors`` is no
            contiguous part of the batch.
    """
    check_pair(student, teacher)
    n = len(student)
    ours, theirs = _near_unit(student), _near_unit(teacher.detach())

    def term(rows: slice, ours: Tensor) -> Tensor:
        p_student, p_teacher = _probabilities(rows, ours), _probabilities(rows, theirs)
        return (p_teacher * ((p_teacher + EPSILON) / (p_student + EPSILON)).log()).sum()

    return sum_over_anchors(term, anchors, n, ours) / n**2


def _near_unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    x = widen(x)
    return x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPSILON)


def _probabilities(rows: slice, x: Float[Tensor, "n d"]) -> Float[Tensor, "t n"]:
    similarity = (x[rows] @ x.T + 1) / 2
    return similarity / similarity.sum(dim=1, keepdim=True)
