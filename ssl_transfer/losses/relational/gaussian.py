"""Gaussian affinity of the teacher's rows: the relaxed label of Kim et al., CVPR 2021."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.losses.precision import unit_rows


class Gaussian:
    """w_ij = exp(-|t_i - t_j|^2 / sigma) of teacher rows of length one; no gradient."""

    def __init__(self, teacher: Float[Tensor, "n d"], sigma: float):
        unit = unit_rows(teacher.detach())
        ones = torch.ones_like(unit[:, :1])
        # |t_i - t_j|^2 = 2 - 2 cos: the exponent comes out of the matmul itself.
        self.left = torch.cat([2 / sigma * unit, -2 / sigma * ones], 1)
        self.right = torch.cat([unit, ones], 1)

    def nearness(self, rows: slice, out: Tensor | None = None) -> Float[Tensor, "t n"]:
        """A number for each pair that falls with its distance, in ``out`` if it is given."""
        return torch.mm(self.left[rows], self.right.T, out=out)

    def tile(self, rows: slice, out: Tensor | None = None) -> Float[Tensor, "t n"]:
        """Affinities of the anchors ``rows`` to all rows, in ``out`` if it is given."""
        affinity = self.nearness(rows, out).exp_()
        affinity[:, rows].fill_diagonal_(1)
        return affinity
