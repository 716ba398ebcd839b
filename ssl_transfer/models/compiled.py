"""Networks that torch.compile fuses."""

from typing import Any

from torch import nn

from ssl_transfer.models.ema import MomentumEncoder
from ssl_transfer.models.embedding import EmbeddingModel, FeatureMaps, WithLogits
from ssl_transfer.models.frozen import Frozen
from ssl_transfer.models.heads import ProjectionHead

_NETWORKS = (EmbeddingModel, FeatureMaps, WithLogits, Frozen, MomentumEncoder, ProjectionHead)


def compile_networks(module: nn.Module, **options: Any) -> None:
    """Compile every network below ``module`` in place, each with its head: students, teachers, trailing copies.

    ``options`` are those of :func:`torch.compile`. Parameters and state dicts stay as they are, and so does everything
    around the networks, such as losses.
    """
    for child in module.children():
        if isinstance(child, _NETWORKS):
            child.compile(**options)
        else:
            compile_networks(child, **options)
