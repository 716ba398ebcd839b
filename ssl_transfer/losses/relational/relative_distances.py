"""Losses that compare relative distances d_ij = |s_i - s_j| / mean_k |s_i - s_k| with affinities of the teacher.

The mean is over all n rows, including the distance of zero from a row to itself, and the gradient flows through it. So
the loss does not change when the student's embeddings are translated, rotated or scaled.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssl_transfer.losses.distances import PairGradient, distance_tile, divide_by_distance, points_of
from ssl_transfer.losses.precision import full_precision, widen
from ssl_transfer.losses.relational.affinity import Affinity
from ssl_transfer.losses.tiles import anchor_range, scaled_once, tile_rows, tiles

# terms(d, w, rows, *parameters) -> (the sum of the anchors' terms, its derivative with respect to d divided by
# ``slope``). The tiles d and w are t x n, and w may be overwritten. Entry (i, rows.start + i) is the pair of an anchor
# with itself: d = 0 and w = 1.
AnchorTerms = Callable[..., tuple[Tensor, Tensor]]


def relative_loss(
    student: Tensor,
    affinity: Affinity,
    terms: AnchorTerms,
    parameters: tuple,
    anchors: slice | None,
    *,
    slope: float = 1.0,
) -> Tensor:
    """1/n times the sum of ``terms`` over the ``anchors``, with a gradient to all rows of ``student``.

    ``parameters`` are handed on to ``terms``, and the derivatives that it returns are multiplied by ``slope``.

    Raises:
        ValueError: ``anchors`` is no contiguous part of the batch.
        RuntimeError: in a backward pass through the gradient, as second derivatives are not available.
    """
    rows = anchor_range(anchors, len(student))
    return _RelativeLoss.apply(widen(student), affinity, terms, parameters, rows, slope)


class _RelativeLoss(torch.autograd.Function):
    """Computes the gradient in the forward pass, so that nothing of a tile is kept; backward scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        affinity: Affinity,
        terms: AnchorTerms,
        parameters: tuple,
        anchors: range,
        slope: float,
    ) -> Tensor:
        n = len(student)
        total = student.new_zeros(())
        with full_precision(student.device):
            points = points_of(student)
            gradient = PairGradient(points)
            size = tile_rows(n, student.device)
            buffers = [student.new_empty(min(size, len(anchors)), n) for _ in range(2)]
            for rows in tiles(anchors, size):
                d, w = (buffer[: rows.stop - rows.start] for buffer in buffers)
                _, close = distance_tile(rows, points, out=d)
                value, g, inverse = _relative_terms(d, affinity.tile(rows, out=w), rows, terms, parameters)
                total += value
                if ctx.needs_input_grad[0]:
                    gradient.add(rows, divide_by_distance(g, d, rows, close), close, slope * inverse.square())
        ctx.save_for_backward(student, gradient.total() / n if ctx.needs_input_grad[0] else None)
        return total / n

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        student, gradient = ctx.saved_tensors
        return scaled_once(gradient, upstream, student), None, None, None, None, None


def _relative_terms(
    d: Tensor, w: Tensor, rows: slice, terms: AnchorTerms, parameters: tuple
) -> tuple[Tensor, Tensor, Tensor]:
    """The value, its derivative with respect to the distances but for the factor 1 / mean, and 1 / mean.

    If g is the derivative with respect to the relative distances, then that with respect to the distances is
    (g_ij - mean_k g_ik d_ik) / mean_i. ``d`` is made relative in place.
    """
    mean = d.mean(dim=1)
    inverse = torch.where(mean > torch.finfo(d.dtype).tiny, 1 / mean, 0)
    d *= inverse[:, None]
    value, g = terms(d, w, rows, *parameters)
    g -= (torch.linalg.vecdot(g, d) / d.shape[1])[:, None]
    return value, g, inverse
