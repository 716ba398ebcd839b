"""Weights and images by a formula, so that a golden file needs to hold only what a network makes of them."""

import math
import zlib

import torch
from torch import Tensor

GOLDEN_RATIO = 0.6180339887498949


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict whose values depend on each tensor's name and shape alone, of a size that keeps signals alive.

    A tensor's values are fractional parts of squares times the golden ratio, which are spread evenly, plus a start
    that the checksum of its name decides.
    """
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
            continue
        count = math.prod(shape)
        start = zlib.crc32(name.encode()) % 100_003 / 100_003
        spread = ((torch.arange(count, dtype=torch.float64).square() * GOLDEN_RATIO + start) % 1.0).view(shape)
        if len(shape) > 1:  # a convolution or the classifier: uniform of variance 2 / inputs
            values = (2 * spread - 1) * math.sqrt(6 / math.prod(shape[1:]))
        elif name.endswith("bias") or name.endswith("running_mean"):
            values = 0.2 * (2 * spread - 1)
        else:  # a norm's weight or variance
            values = 0.5 + spread
        state[name] = values.float()
    return state


def images() -> Tensor:
    """Two normalized images."""
    place = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)
    return (place.square() * GOLDEN_RATIO % 1.0).sub(0.5).mul(3).view(2, 3, 32, 32).float()
