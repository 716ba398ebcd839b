"""Relaxed multi-similarity loss, from the code of Kim et al., CVPR 2021."""

from jaxtyping import Float, Int
from torch import Tensor

from ssl_transfer.losses.checks import check_pair, check_positive
from ssl_transfer.losses.relational.affinity import AffinityName, make_affinity
from ssl_transfer.losses.relational.relative_distances import relative_loss


def relaxed_multi_similarity(
    student: Float[Tensor, "n d_student"],
    teacher: Float[Tensor, "n d_teacher"],
    image: Int[Tensor, " n"],
    *,
    sigma: float | None = None,
    delta: float = 1.0,
    alpha: float = 1.0,
    beta: float = 2.0,
    affinity: AffinityName = "standardized",
    neighbors: int = 10,
    anchors: slice | None = None,
) -> Float[Tensor, ""]:
    """Pull and push pairs by relaxed labels, the hardest positives and negatives most (code of Kim et al., CVPR 2021).

        L = (1/n) sum_i [ (1/alpha) log(1 + sum_j w_ij exp(alpha d_ij))
                        + (1/beta)  log(1 + sum_j (1 - w_ij) exp(beta (delta - d_ij))) ],   j != i

    with the affinities w and distances d of :func:`relaxed_contrastive`, and w_ij = 1 where rows i and j are views of
    the same ``image``, an integer for each row. The authors' code, with the Gaussian affinity, stops with a NameError;
    this is their formula with the undefined name read as the student. ``anchors`` are the rows i whose terms this
    process computes, by default all.

    Raises:
        ValueError: student and teacher have different rows, or rows that are not finite; ``image`` has another number
            of them; ``delta``, ``alpha`` or ``beta`` is not positive; ``affinity``, ``sigma`` and ``neighbors`` are
            not those of an affinity; or ``anchors`` is no contiguous part of the batch.
    """
    check_pair(student, teacher)
    check_positive(delta=delta, alpha=alpha, beta=beta)
    if image.shape != (len(student),):
        raise ValueError(f"image has shape {tuple(image.shape)}: give one integer for each of {len(student)} rows.")

    weights = make_affinity(affinity, teacher, sigma, neighbors, image)
    return relative_loss(student, weights, _terms, (image, delta, alpha, beta), anchors)


def _terms(
    d: Tensor, w: Tensor, rows: slice, image: Tensor, delta: float, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    w.masked_fill_(image[rows, None] == image, 1)
    # An outlier's distance can reach n: the sum of exponentials is kept below e^0 by its largest exponent.
    top = alpha * d.amax(dim=1, keepdim=True)
    pull = (alpha * d).sub_(top).exp_().mul_(w)
    pull[:, rows].diagonal().zero_()
    pulled = pull.sum(dim=1, keepdim=True).add_((-top).exp())
    push = (delta - d).mul_(beta).exp_().mul_(w.neg_().add_(1))
    pushed = push.sum(dim=1, keepdim=True).add_(1)
    value = ((pulled.log() + top) / alpha + pushed.log() / beta).sum()
    return value, pull.div_(pulled).sub_(push.div_(pushed))
