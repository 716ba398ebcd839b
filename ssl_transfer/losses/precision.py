"""Arithmetic in float32 or wider, whatever the training precision around a loss."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.arithmetic import CPU_MATMUL, GPU_MATMUL, products_in


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 if it is narrower, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rows(x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """``x`` in float32 or wider with rows of length one; a row of zeros stays zero and has a finite gradient."""
    x = widen(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.where(length > 0, 1)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in float32 inside the block: no autocast, no TF32 or bfloat16.

    A squared distance is a small difference of large numbers. With the 10 bits of TF32 it would be noise.
    """
    with products_in("ieee", GPU_MATMUL, CPU_MATMUL), torch.autocast(device.type, enabled=False):
        yield
