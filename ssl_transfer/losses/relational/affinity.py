"""How similar two images are to the teacher: the relaxed labels of relaxed contrastive and multi-similarity loss."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from ssl_transfer.losses.checks import check_positive
from ssl_transfer.losses.relational.contextual import Contextual
from ssl_transfer.losses.relational.gaussian import Gaussian
from ssl_transfer.losses.relational.standardized import Standardized

# ``tile(rows, out=None)`` gives the affinities of a tile of anchors to all rows; that of a row to itself is one.
Affinity = Standardized | Gaussian | Contextual
AffinityName = Literal["standardized", "gaussian", "contextual"]


def make_affinity(
    name: AffinityName,
    teacher: Float[Tensor, "n d"],
    sigma: float | None,
    neighbors: int,
    image: Int[Tensor, " n"] | None,
) -> Affinity:
    """The affinity that is named; ``neighbors`` and ``image`` are for the contextual one.

    ``sigma`` is the width of a Gaussian: the affinity itself, or what the contextual one is averaged with; without it
    that is averaged with the standardized one.

    Raises:
        ValueError: there is no affinity of that name, ``sigma`` is not positive, is missing or has nothing to do, or
            ``neighbors`` is below 2 or above the number of rows.
    """
    if name not in ("standardized", "gaussian", "contextual"):
        raise ValueError(f"affinity={name!r} is unknown: use 'standardized', 'gaussian' or 'contextual'.")
    if name == "gaussian" and sigma is None:
        raise ValueError("affinity='gaussian' needs sigma, its width: 1 in the paper.")
    if name == "standardized" and sigma is not None:
        raise ValueError(f"sigma={sigma} is the width of a Gaussian: leave it out, or set affinity='gaussian'.")
    if sigma is not None:
        check_positive(sigma=sigma)
    pairwise = Standardized(teacher) if sigma is None else Gaussian(teacher, sigma)
    return Contextual(pairwise, neighbors, image) if name == "contextual" else pairwise
