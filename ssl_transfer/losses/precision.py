"""Arithmetic in float32 or wider, whatever the training precision around a loss."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """``x`` in float32 if it is narrower, else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unit_rows(x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """``x`` in float32 or wider with rows of length one; a row of zeros stays, and has a finite gradient."""
    x = widen(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.where(length > 0, 1)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast and reduced-precision float32 matmuls (TF32, bfloat16) off inside the block.

    A squared distance is a small difference of large numbers: with the 10 bits of TF32 it is noise.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
