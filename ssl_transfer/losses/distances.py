"""Euclidean distances between a tile of rows and all rows, and the gradient through them.

Distances come from one matmul: |a - b|^2 = |a|^2 + |b|^2 - 2 a . b. That loses digits where two rows are much closer to
each other than to the origin.

On a CPU the squared distances that are smaller than ``CLOSE`` times the squared norms are computed again from the
difference of the rows, and so is their part of the gradient: duplicates are at a distance of exactly zero, and near
duplicates are pulled along the line between them. There are few such pairs in any batch that teaches something; where
there are many, they are handled ``CHUNK`` at a time.

A GPU would have to be waited for to count these pairs. There the matmuls, of distances and gradients, are float64.
It keeps the digits of float32 without a list of pairs (four of them where rows are a millionth of their norm apart),
and squared distances below ``DUPLICATE`` times the squared norms are zero.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# The relative error of a squared distance from the matmul is about 3e-7 / CLOSE in float32.
CLOSE = 1e-3
CHUNK = 2**15
# Above the relative error of a squared distance from the matmul in float64, for rows of some thousand entries.
DUPLICATE = 1e-13


def lists_close_pairs(x: Tensor) -> bool:
    """Whether pairs of rows of ``x`` that are close to each other are looked for, and not float64 used instead."""
    return not x.is_cuda


class Points(NamedTuple):
    """Rows ``x`` as given, and the two factors of a matmul: ``left[i] @ right[j]`` is |x_i - x_j|^2.

    All but ``x`` are float64 where no close pairs are listed.
    """

    x: Float[Tensor, "n d"]
    centered: Float[Tensor, "n d"]
    squares: Float[Tensor, " n"]
    left: Float[Tensor, "n d+2"]
    right: Float[Tensor, "n d+2"]


def points_of(x: Float[Tensor, "n d"]) -> Points:
    """The rows ``x``, of float32 or float64, prepared for :func:`distance_tile`.

    The mean row is subtracted, since an offset that all rows share changes no distance but would cost the matmul its
    digits. The rounding error of the mean is itself such an offset, and a small one.
    """
    wide = x if lists_close_pairs(x) else x.double()
    centered = wide - wide.mean(dim=0)
    squares = centered.square().sum(dim=1)
    column, ones = squares[:, None], torch.ones_like(squares)[:, None]
    left, right = torch.cat([-2 * centered, column, ones], 1), torch.cat([centered, ones, column], 1)
    return Points(x, centered, squares, left, right)


def distance_tile(
    rows: slice, points: Points, out: Tensor | None = None
) -> tuple[Float[Tensor, "t n"], Int[Tensor, "p 2"]]:
    """Distances of the anchors ``rows`` to all rows, and which pairs are close.

    A close pair is given as (row of the tile, column); the pairs of an anchor with itself are not among them. The
    distances are written to ``out`` if it is given. Where none are listed, there are none.
    """
    if not lists_close_pairs(points.x):
        squared = points.left[rows] @ points.right.T
        squares = points.squares[rows, None] + points.squares
        squared.masked_fill_(squared <= DUPLICATE * squares, 0)
        out = torch.empty_like(squared, dtype=points.x.dtype) if out is None else out
        return out.copy_(squared.sqrt_()), torch.empty(0, 2, dtype=torch.long, device=out.device)
    squared = torch.mm(points.left[rows], points.right.T, out=out)
    squared[:, rows].fill_diagonal_(torch.inf)
    close = _close_pairs(squared, points.squares[rows], points.squares)
    squared[:, rows].fill_diagonal_(0)
    for i, j in _chunks(close):
        squared[i, j] = (points.x[rows][i] - points.x[j]).square().sum(dim=1)
    return squared.sqrt_(), close


def _close_pairs(squared: Tensor, row_squares: Tensor, column_squares: Tensor) -> Tensor:
    nearest = squared.amin(dim=1)
    if (nearest > CLOSE * (row_squares + column_squares.max())).all():  # one pass, and nearly always the answer
        return torch.empty(0, 2, dtype=torch.long, device=squared.device)
    return (squared <= CLOSE * (row_squares[:, None] + column_squares)).nonzero()


def _chunks(close: Tensor) -> Iterator[tuple[Tensor, ...]]:
    for pairs in close.split(CHUNK) if len(close) else ():
        yield pairs.unbind(1)


def divide_by_distance(x: Tensor, distance: Tensor, rows: slice, close: Tensor) -> Tensor:
    """``x / distance``, and zero where the distance is zero.

    The result takes the place of ``x``, and ``distance`` is overwritten. ``rows`` and ``close`` are those that belong
    to ``distance`` (see :func:`distance_tile`).
    """
    if not lists_close_pairs(distance):
        return x.div_(distance.masked_fill_(distance == 0, torch.inf))
    distance[:, rows].fill_diagonal_(torch.inf)
    for i, j in _chunks(close):
        distance[i, j] = distance[i, j].masked_fill(distance[i, j] == 0, torch.inf)
    return x.div_(distance)


class PairGradient:
    """The gradient with respect to all rows of a sum of functions of their distances, accumulated tile by tile.

    If the derivative of a pair's term by the distance d of its rows is ``spring * d``, then the gradient is
    ``spring * (x_i - x_j)`` for row i and the opposite for row j. Summed over a tile these are two matmuls, in which
    the column of ones in ``points.right`` sums the springs.
    """

    def __init__(self, points: Points):
        self.points = points
        self.pulled = torch.zeros_like(points.right)
        self.close = torch.zeros_like(points.x)

    def add(self, rows: slice, springs: Tensor, close: Tensor, scale: Tensor | None = None) -> None:
        """Add the pairs of a tile, ``springs`` times ``scale``, which has one number for each row of the tile.

        ``springs`` is overwritten. ``close`` are the close pairs of the tile.
        """
        x, right = self.points.x, self.points.right
        scale = torch.ones_like(x[rows, 0]) if scale is None else scale
        for i, j in _chunks(close):
            force = (scale[i] * springs[i, j])[:, None] * (x[rows][i] - x[j])
            self.close[rows].index_add_(0, i, force)
            self.close.index_add_(0, j, force, alpha=-1)
            springs[i, j] = 0
        if len(springs) == len(x):  # all pairs at once: both directions in one matmul
            springs.mul_(scale[:, None])
            self.pulled += (springs + springs.T).to(right.dtype) @ right
            return
        springs, scale = springs.to(right.dtype), scale.to(right.dtype)
        self.pulled[rows] += scale[:, None] * (springs @ right)
        torch.addmm(self.pulled, springs.T, scale[:, None] * right[rows], out=self.pulled)

    def total(self) -> Float[Tensor, "n d"]:
        """The gradient of everything added so far."""
        width = self.points.x.shape[1]
        springs = self.pulled[:, width : width + 1]
        return (springs * self.points.centered - self.pulled[:, :width]).to(self.close.dtype) + self.close


def euclidean(rows: slice, x: Float[Tensor, "n d"]) -> Float[Tensor, "t n"]:
    """Distances of the anchors ``rows`` to all rows of ``x``; where a distance is zero, so is its gradient."""
    return _Euclidean.apply(rows, x)


class _Euclidean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: slice, x: Tensor) -> Tensor:
        distance, close = distance_tile(rows, points_of(x))
        ctx.rows = rows
        ctx.save_for_backward(x, distance, close)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:
        x, distance, close = ctx.saved_tensors
        gradient = PairGradient(points_of(x))
        springs = divide_by_distance(upstream.clone(), distance.clone(), ctx.rows, close)
        gradient.add(ctx.rows, springs, close)
        return None, gradient.total()
