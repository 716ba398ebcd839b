"""Relaxed contrastive loss (Kim et al., CVPR 2021): the embedding transfer this project is about."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.relational.affinity import AffinityName, make_affinity
from ssl_transfer.losses.relational.relative_distances import relative_loss


def relaxed_contrastive(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    *,
    sigma: float | None = None,
    delta: float = 1.0,
    affinity: AffinityName = "standardized",
    neighbors: int = 10,
    image: Int[Tensor, " n"] | None = None,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Pull and push every pair of student rows according to the teacher's affinity (Kim et al., CVPR 2021).

        d_ij = |s_i - s_j| / mean_k |s_i - s_k|
        L = (1/n) sum_i sum_j [ w_ij d_ij^2 + (1 - w_ij) relu(delta - d_ij)^2 ]

    The affinity w is one of

        standardized:  1 / (1 + exp(2 z_ij + 3)),  z_ij = (|t_i - t_j|^2 - mean_k |t_i - t_k|^2) / sd_k |t_i - t_k|^2
        gaussian:      exp(-|t_i - t_j|^2 / sigma), that of the paper, where sigma = 1
        contextual:    the mean of the overlap of the ``neighbors`` of two rows (STML) and of one of the others: the
                       Gaussian if ``sigma`` is given. It takes rows of the same ``image`` as neighbors of each other.

    The standardized one, with mean and sd over the other rows k, is the same for any scale of the teacher's distances;
    the Gaussian needs a sigma that suits it.
    Rows are those of the global batch, with all views. Teacher rows are brought to length one here and never receive a
    gradient; student rows are used as they are. ``anchors`` are the rows i whose terms this process computes, by
    default all: the sum over processes is L.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; ``delta`` is not positive;
            there is no such ``affinity``, or ``sigma`` is not positive, missing beside the Gaussian or given beside the
            standardized one; ``neighbors`` is below 2 or above the number of rows; or ``anchors`` is no contiguous part
            of the batch.
    """
    check_pair(student, teacher)
    check_positive(delta=delta)

    weights = make_affinity(affinity, teacher, sigma, neighbors, image)
    return relative_loss(student, weights, _terms, (delta,), anchors, slope=2.0)


def _terms(d: Tensor, w: Tensor, rows: slice, delta: float) -> tuple[Tensor, Tensor]:
    """With r = relu(delta - d) and u = w (d + r):  dterm/dd = 2 (u - r)  and  term = u d - r (u - r)."""
    r = d.clamp(min=delta)
    u = w.mul_(r)
    r -= d
    value = torch.dot(u.view(-1), d.view(-1))
    half = u.sub_(r)
    return value - torch.dot(r.view(-1), half.view(-1)), half
