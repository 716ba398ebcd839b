"""How alike two images are to the teacher, for relaxed contrastive and relaxed multi-similarity."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from ssl_transfer.losses.relational.contextual import Contextual
from ssl_transfer.losses.relational.gaussian import Gaussian

# ``tile(rows, out=None)`` gives the affinities of a tile of anchors to all rows, one on the diagonal.
Affinity = Gaussian | Contextual
AffinityName = Literal["gaussian", "contextual"]


def make_affinity(
    name: AffinityName,
    teacher: Float[Tensor, "n d"],
    sigma: float,
    neighbors: int,
    image: Int[Tensor, " n"] | None,
) -> Affinity:
    """The affinity of that ``name``; ``neighbors`` and ``image`` are for the contextual one."""
    if name == "gaussian":
        return Gaussian(teacher, sigma)
    if name == "contextual":
        return Contextual(Gaussian(teacher, sigma), neighbors, image)
    raise ValueError(f"affinity={name!r} is unknown: use 'gaussian' or 'contextual'.")
