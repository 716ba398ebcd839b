"""Affinity by where a squared distance stands among those of its row: the same whatever the teacher's scale."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.precision import widen

# Chosen on images held out of training, with several teachers: docs/losses.md.
STEEPNESS, CENTER = 2.0, -1.5
# Distances of unit rows below this many units of rounding say nothing of the images.
ROUNDING = 16


class Standardized:
    """w_ij = 1 / (1 + exp(2 z_ij + 3)) with z_ij = (|t_i - t_j|^2 - mean_k) / sd_k of teacher rows of length one.

    Mean and standard deviation are over the squared distances of row i to the other rows. So adding to all squared
    distances, or multiplying them, changes nothing, and a teacher whose rows all lie close together teaches as much as
    one that uses the whole sphere. w is 1/2 where a distance is 1.5 standard deviations below the mean, as those of the
    nearest few per cent of a row are. Where all of a row's distances are equal to within rounding, z is 0. No gradient.
    """

    def __init__(self, teacher: Float[Tensor, "n d"]):
        rows = widen(teacher.detach())
        self.smallest = (ROUNDING * torch.finfo(rows.dtype).eps) ** 2
        # Rows t far from the origin differ in their last digits only. Those of t / |t| less their mean are all kept by
        # t = m + e, with the mean m: what is left of m (1 / |t| - mean) is a product and no difference of vectors.
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
        inverse = torch.where(length > 0, 1 / length, 0)
        middle = rows.mean(dim=0)
        own = (rows - middle).mul_(inverse.to(rows.dtype))
        centered = own.sub_(own.mean(dim=0)).addcmul_((inverse - inverse.mean()).to(rows.dtype), middle)
        squares = torch.linalg.vector_norm(centered, dim=1, keepdim=True, dtype=torch.float64).square()
        # (mean_k |t_i - t_k|^2 - |t_i - t_j|^2) / 2 = c_i . c_j + (mean_k |c_k|^2 - |c_j|^2) / 2 of centered rows c.
        self.left = torch.cat([centered, torch.ones_like(centered[:, :1])], 1)
        self.right = torch.cat([centered, (squares.mean() - squares).to(rows.dtype) / 2], 1)

    def nearness(self, rows: slice, out: Tensor | None = None) -> Float[Tensor, "t n"]:
        """A number for each pair that falls with its distance, in ``out`` if it is given; a row's sum is zero."""
        return torch.mm(self.left[rows], self.right.T, out=out)

    def tile(self, rows: slice, out: Tensor | None = None) -> Float[Tensor, "t n"]:
        """Affinities of the anchors ``rows`` to all rows, in ``out`` if it is given."""
        nearness = self.nearness(rows, out)
        # The zero to itself would be an outlier: where distances are nearly equal, a third of the variance of 100 rows.
        others = max(len(self.right) - 1, 1)
        nearness.add_(nearness[:, rows].diagonal()[:, None] / others)  # now the sum over the others is zero
        nearness[:, rows].fill_diagonal_(0)
        deviation = (torch.linalg.vecdot(nearness, nearness) / others).sqrt_()
        scale = torch.where(deviation > self.smallest / 2, STEEPNESS / deviation, 0)
        half = nearness.new_full((), STEEPNESS * CENTER)
        affinity = torch.addcmul(half, nearness, scale[:, None], out=nearness).sigmoid_()
        affinity[:, rows].fill_diagonal_(1)
        return affinity
