"""Contextual affinity of STML (Kim et al., CVPR 2022): two rows are similar if their reciprocal neighbors are the same.

N(i) are the k rows nearest to row i, itself and the other views of its image first, and R(i) those j of N(i) for
which i is in N(j):

    overlap_ij = |R(i) and R(j)| / |R(i)|  for j in R(i), else 0
    half_ij    = mean of overlap_hj over the first k/2 rows h of N(i)
    w_ij       = (pairwise_ij + (half_ij + half_ji) / 2) / 2

With a Gaussian as the pairwise affinity this is that of the authors' code (tjddus9597/STML-CVPR22, ``RC_STML``). That
code also divides the loss by n (n - 1) instead of n; here the affinity does not change how the loss is averaged.
``overlap`` has k entries in a row and ``half`` k * k/2; both are kept as lists, and only tiles are dense. Every process
finds the neighbors of all rows.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl_transfer.losses.precision import full_precision
from ssl_transfer.losses.relational.gaussian import Gaussian
from ssl_transfer.losses.relational.standardized import Standardized
from ssl_transfer.losses.tiles import tile_rows, tiles


class Contextual:
    """The mean of a pairwise and the contextual affinity.

    ``neighbors`` is k, and rows of the same ``image`` are views of one image.

    Raises:
        ValueError: ``neighbors`` is below 2 or above the number of rows.
    """

    def __init__(self, pairwise: Gaussian | Standardized, neighbors: int, image: Int[Tensor, " n"] | None):
        n = len(pairwise.right)
        if not 2 <= neighbors <= n:
            raise ValueError(f"neighbors={neighbors} must be from 2 to the {n} rows of the batch.")
        self.pairwise = pairwise
        nearest = _nearest(pairwise, neighbors, image)
        reciprocal = (nearest[nearest] == torch.arange(n, device=nearest.device)[:, None, None]).any(dim=2)
        overlap = _overlap(nearest, reciprocal, pairwise.right.dtype)
        first = nearest[:, : round(neighbors / 2)]  # a half rounds to even, as in the authors' np.around
        self.column = nearest[first].flatten(1)
        self.value = overlap[first].flatten(1) / first.shape[1]

    def tile(self, rows: slice, out: Tensor | None = None) -> Float[Tensor, "t n"]:
        """Affinities of the anchors ``rows`` to all rows, in ``out`` if it is given."""
        n = len(self.column)
        half = self.value.new_zeros(rows.stop - rows.start, n).scatter_add_(1, self.column[rows], self.value[rows])
        # Entries of other columns add zero somewhere: to pick those of the tile's would wait for the device.
        place = self.column - rows.start
        inside = (place >= 0) & (place < len(half))
        entry = place.clamp_(0, len(half) - 1).mul_(n).add_(torch.arange(n, device=half.device)[:, None])
        half.view(-1).scatter_add_(0, entry.flatten(), (self.value * inside).flatten())
        affinity = self.pairwise.tile(rows, out).add_(half, alpha=0.5).mul_(0.5)
        affinity[:, rows].fill_diagonal_(1)
        return affinity


def _nearest(pairwise: Gaussian | Standardized, neighbors: int, image: Tensor | None) -> Int[Tensor, "n k"]:
    n, device = len(pairwise.right), pairwise.right.device
    found = []
    with full_precision(device):
        for rows in tiles(range(n), tile_rows(n, device)):
            nearness = pairwise.nearness(rows)
            nearness[:, rows].fill_diagonal_(torch.inf)
            if image is not None:
                nearness.masked_fill_(image[rows, None] == image, torch.inf)
            found.append(nearness.topk(neighbors, dim=1).indices)
    return torch.cat(found)


def _overlap(nearest: Int[Tensor, "n k"], reciprocal: Bool[Tensor, "n k"], dtype: torch.dtype) -> Float[Tensor, "n k"]:
    """Entry (i, a) is ``overlap[i, nearest[i, a]]``."""
    n, k = nearest.shape
    found = []
    for rows in tiles(range(n), max(1, tile_rows(n, nearest.device) // k)):
        mine = reciprocal[rows]
        member = torch.zeros(len(mine), n, dtype=dtype, device=nearest.device)
        member.scatter_(1, nearest[rows], mine.to(dtype))
        theirs = nearest[nearest[rows]]  # t x k x k: the neighbors of the neighbors
        shared = member.gather(1, theirs.flatten(1)).view_as(theirs) * reciprocal[nearest[rows]]
        found.append(shared.sum(dim=2) * mine / mine.sum(dim=1, keepdim=True).clamp(min=1))
    return torch.cat(found)
