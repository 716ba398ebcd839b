"""How similar two images are to the teacher: the relaxed labels of relaxed contrastive and multi-similarity loss."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from ssl_transfer.losses.relational.contextual import Contextual
from ssl_transfer.losses.relational.gaussian import Gaussian

# ``tile(rows, out=None)`` gives the affinities of a tile of anchors to all rows; that of a row to itself is one.
Affinity = Gaussian | Contextual
AffinityName = Literal["gaussian", "contextual"]


def make_affinity(
    name: AffinityName,
    teacher: Float[Tensor, "n d"],
    sigma: float,
    neighbors: int,
    image: Int[Tensor, " n"] | None,
) -> Affinity:
    """The affinity that is named; ``neighbors`` and ``image`` are for the contextual one.

    Raises:
        ValueError: there is no affinity of that name, or ``neighbors`` is below 2 or above the number of rows.
    """
    if name == "gaussian":
        return Gaussian(teacher, sigma)
    if name == "contextual":
        return Contextual(Gaussian(teacher, sigma), neighbors, image)
    raise ValueError(f"affinity={name!r} is unknown: use 'gaussian' or 'contextual'.")
