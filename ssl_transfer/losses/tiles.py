"""Sums over anchors, tile by tile.

A relational loss is a sum with one term for each anchor, a row of the global batch, and a term compares its anchor with
all rows. This module walks over the anchors in tiles of consecutive rows, so that a matrix of a tile by all rows is the
largest that is ever held: memory is O(n d + tile n), never n x n. A process may sum over some of the anchors only;
where every anchor belongs to exactly one process, the sum of their results is the loss of the global batch.
"""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from ssl_transfer.losses.precision import full_precision

# Entries of a matrix of one tile by all rows. A few such matrices should fit into the cache of a CPU. For a GPU they
# should be large enough to hide the cost of a launch, and a dozen of them should stay far below a gigabyte.
CPU_ENTRIES = 2**20
GPU_ENTRIES = 2**23
MINIMUM_ROWS = 64


def anchor_range(anchors: slice | None, n: int) -> range:
    """The rows that ``anchors`` selects of a batch of ``n``; None selects all of them.

    Raises:
        ValueError: ``anchors`` has a step, or reaches beyond the batch.
    """
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
    """The number of anchors in a tile if each is compared with ``n`` rows."""
    entries = CPU_ENTRIES if device.type == "cpu" else GPU_ENTRIES
    return max(MINIMUM_ROWS, entries // max(n, 1))


def tiles(rows: range, size: int) -> Iterator[slice]:
    """``rows`` cut into consecutive slices of ``size`` rows, the last one shorter if need be."""
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


def sum_over_anchors(
    term: Callable[..., Tensor], anchors: slice | None, n: int, *inputs: Tensor, tile: int | None = None
) -> Tensor:
    """The sum of the terms of ``anchors``, with gradients to those ``inputs`` that require one.

    ``term(rows, *inputs)`` computes the sum of the terms of the anchors in the slice ``rows`` by ordinary
    differentiable operations. It is called once for each tile, in full precision, and differentiated at once: the
    gradients are accumulated during the forward pass, and the graph of one tile is freed before the next is built.
    ``n`` is the number of rows in the batch. ``tile`` is the number of anchors in a tile, by default as many as
    :func:`tile_rows` allows for terms that look at ``n`` rows.

    Raises:
        ValueError: ``anchors`` is no contiguous part of the batch.
        RuntimeError: in a backward pass through the gradient, as second derivatives are not available.
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
    """``gradient * upstream``, a gradient with respect to ``source`` that cannot be differentiated again.

    Since ``gradient`` was computed in the forward pass, autograd does not know how it depends on ``source``. A second
    derivative would silently lack those terms, so it raises an error.

    Raises:
        RuntimeError: in a backward pass through the result.
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
