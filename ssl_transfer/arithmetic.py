"""How exactly backends multiply float32: in float32 itself ("ieee"), or faster with fewer digits ("tf32")."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

GPU_MATMUL: Any = torch.backends.cuda.matmul
GPU_CONVOLUTION: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
CPU_MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


def set_products(precision: str, *backends: Any) -> None:
    """Let ``backends`` multiply in ``precision`` from now on."""
    for backend in backends:
        backend.fp32_precision = precision


@contextmanager
def products_in(precision: str, *backends: Any) -> Iterator[None]:
    """Let ``backends`` multiply in ``precision`` inside the block, and as they did before after it."""
    before = [backend.fp32_precision for backend in backends]
    try:
        set_products(precision, *backends)
        yield
    finally:
        for backend, precision_before in zip(backends, before, strict=True):
            backend.fp32_precision = precision_before


def seconds_of_multiplying(device: torch.device) -> float:
    """What one multiply-add of a product of float32 matrices takes on ``device``, of a size at which it is busy."""
    side = 2048 if device.type == "cuda" else 512
    left = right = torch.ones(side, side, device=device)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # which waits for the product
        seconds.append(time.perf_counter() - start)
    return min(seconds) / side**3
