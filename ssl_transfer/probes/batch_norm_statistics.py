"""Whether images are normalized as in training, judged by the statistics that the first batch norm remembers."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

Color = tuple[float, ...]
MOST = 10.0  # of one channel: else a filter that resized images never excite would outweigh all others


class _Stop(Exception):
    """The first batch norm has been reached."""


@torch.no_grad()
def batch_norm_mismatch(
    network: nn.Module, images: Float[Tensor, "n c h w"], normalizations: Mapping[str, tuple[Color, Color]]
) -> dict[str, float]:
    """How far the input of the first batch norm is from its running statistics, for each way to normalize ``images``.

    This is the mean over channels of the Kullback-Leibler divergence KL(seen | remembered) between two normal
    distributions, which have the channel's mean and variance over images and positions. A channel counts 10 at most. It
    is 0 where both agree; a variance of half or twice the remembered one gives 0.1 to 0.2.

    ``normalizations`` has a mean and a standard deviation for each color, under any names; the result has the same
    names, and is empty where the network has no batch norm with running statistics. ``images`` are in [0, 1] and have
    the network's input size. The network is run up to that layer only.
    """
    found: dict[str, float] = {}
    for name, (mean, std) in normalizations.items():
        shift, scale = (torch.tensor(color, device=images.device).view(-1, 1, 1) for color in (mean, std))
        seen = _first_batch_norm(network, (images - shift) / scale)
        if seen is None:
            return {}
        layer, x = seen
        assert layer.running_mean is not None and layer.running_var is not None
        variance, expected = x.var(dim=(0, 2, 3)).clamp(min=1e-12), layer.running_var + layer.eps
        distance = (x.mean(dim=(0, 2, 3)) - layer.running_mean).square() / expected
        divergence = 0.5 * (variance / expected + distance - 1 - (variance / expected).log())
        found[name] = divergence.clamp(max=MOST).mean().item()
    return found


def _first_batch_norm(network: nn.Module, x: Tensor) -> tuple[nn.BatchNorm2d, Tensor] | None:
    seen: list[tuple[Any, Tensor]] = []

    def stop(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append((module, inputs[0]))
        raise _Stop

    layers = [module for module in network.modules() if _remembers(module)]
    handles = [layer.register_forward_pre_hook(stop) for layer in layers]
    try:
        network(x)
    except _Stop:
        return seen[0]
    finally:
        for handle in handles:
            handle.remove()
    return None


def _remembers(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
