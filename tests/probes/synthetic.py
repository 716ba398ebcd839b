"""Features of known classes, easy and hard, for the tests of the probes."""

import torch
from torch import Tensor


def clouds(n: int, d: int, num_classes: int, *, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian clouds around random centers, with directions of very different scale as real features have."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(num_classes, d, generator=torch.Generator().manual_seed(12345))
    labels = torch.arange(n) % num_classes
    noise = torch.randn(n, d, generator=generator)
    scales = torch.logspace(0, -1.5, d)
    return (centers[labels] + spread * noise) * scales + 3 * scales, labels
