"""The walk over anchors that every relational loss shares.

A relational loss is a sum over anchors (rows) of terms that look at all rows. ``anchors`` is the contiguous
slice of rows whose terms this process computes; None is all of them. Anchors are walked in tiles, so memory
is O(n d + tile n) and never n x n, and the sum of the results over processes with disjoint slices is the loss
of the global batch.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from ssl_transfer.losses.precision import full_precision

# Entries of one tile x n work matrix. On a CPU a few of them should stay in the cache; on a GPU they should
# be large enough to hide the cost of a launch, and a dozen of them far below a gigabyte.
CPU_ENTRIES = 2**20
GPU_ENTRIES = 2**23
MINIMUM_ROWS = 64


def anchor_range(anchors: slice | None, n: int) -> range:
    """The rows of ``anchors`` as a range, all ``n`` of them for None."""
    if anchors is None:
        return range(n)
    if anchors.step not in (None, 1):
        raise ValueError(f"anchors={anchors} must be contiguous: use a slice with step 1.")
    start = 0 if anchors.start is None else anchors.start
    stop = n if anchors.stop is None else anchors.stop
    if not 0 <= start <= stop <= n:
        raise ValueError(f"anchors={anchors} must lie within the {n} rows of the global batch.")
    return range(start, stop)


def tile_rows(n: int, device: torch.device) -> int:
    """How many anchors to take at a time against ``n`` columns."""
    entries = CPU_ENTRIES if device.type == "cpu" else GPU_ENTRIES
    return max(MINIMUM_ROWS, entries // max(n, 1))


def tiles(rows: range, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` of the ``rows``."""
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


def sum_over_anchors(
    term: Callable[..., Tensor], anchors: slice | None, n: int, *inputs: Tensor, tile: int | None = None
) -> Tensor:
    """Sum ``term(rows, *inputs)`` over tiles of anchors, with gradients to every input that asks for one.

    ``term`` is a plain differentiable function of the slice of anchors and the inputs; it is differentiated
    tile by tile during the forward pass, so that no tile's graph outlives it.
    """
    size = tile if tile is not None else tile_rows(n, inputs[0].device)
    return _SumOverAnchors.apply(term, list(tiles(anchor_range(anchors, n), size)), *inputs)


class _SumOverAnchors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, term: Callable[..., Tensor], slices: list[slice], *inputs: Tensor) -> Tensor:
        total = inputs[0].new_zeros(())
        wanted = [i for i, x in enumerate(inputs) if x.requires_grad]
        gradients = [torch.zeros_like(inputs[i]) for i in wanted]
        with full_precision(total.device), torch.set_grad_enabled(bool(wanted)):
            for rows in slices:
                leaves = [x.detach().requires_grad_(x.requires_grad) for x in inputs]
                value = term(rows, *leaves)
                total += value.detach()
                if wanted:
                    found = torch.autograd.grad(value, [leaves[i] for i in wanted])
                    for gradient, part in zip(gradients, found, strict=True):
                        gradient += part
        ctx.wanted = wanted
        ctx.save_for_backward(*inputs, *gradients)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.saved_tensors) - len(ctx.wanted)
        inputs, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        result: list[Tensor | None] = [None] * count
        for i, gradient in zip(ctx.wanted, gradients, strict=True):
            result[i] = scaled_once(gradient, upstream, inputs[i])
        return None, None, *result


def scaled_once(gradient: Tensor, upstream: Tensor, source: Tensor) -> Tensor:
    """``gradient * upstream``, and an error if it is differentiated again by its ``source``.

    The gradient was worked out ahead, so a second derivative through it would lack terms without a word.
    """
    result = gradient * upstream
    return _Refusal.apply(result, source) if torch.is_grad_enabled() else result


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Tensor, source: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> NoReturn:
        raise RuntimeError("The gradient of a relational loss cannot be differentiated again.")
