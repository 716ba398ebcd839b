"""``model.freeze``: keep the first part of a pretrained backbone as it is and train the rest."""

from itertools import chain
from typing import Any

from timm.models._manipulate import group_with_matcher  # group_parameters, for any names
from torch import nn

from ssl_transfer.models.backbones import Backbone


def freeze_stages(backbone: Backbone, stages: int) -> None:
    """Freeze the stem and the first ``stages`` stages of ``backbone``, in place.

    A stage is a group of layers as timm divides the family (``group_matcher(coarse=True)``): a stage of a convolutional
    or hierarchical network, a block of a plain vision transformer. What timm puts in no group, such as a last norm,
    stays trainable. Frozen parameters take no gradient, so optimizers and DDP leave them out; frozen modules stay in
    eval mode, so that their batch norms keep their statistics and nothing is dropped.

    Raises:
        ValueError: the network has fewer stages, or timm does not divide it.
    """
    groups = _layer_groups(backbone)
    if not 0 <= stages < len(groups):
        raise ValueError(
            f"backbone {backbone.name!r} has {len(groups) - 1} stages after its stem: freeze 0 (the stem alone) to "
            f"{len(groups) - 1} of them, not {stages}"
        )
    frozen = set(chain.from_iterable(groups[: stages + 1]))
    for name, parameter in backbone.network.named_parameters():
        parameter.requires_grad_(name not in frozen)
    backbone.frozen = tuple(name for name, module in backbone.network.named_modules() if name and _takes_none(module))
    backbone.train(backbone.training)


def stage_count(backbone: Backbone) -> int:
    """How many stages :func:`freeze_stages` can freeze after the stem.

    Raises:
        ValueError: timm does not divide the network.
    """
    return len(_layer_groups(backbone)) - 1


def _layer_groups(backbone: Backbone) -> list[list[str]]:
    """Names of the parameters of the stem and of each stage."""
    network: Any = backbone.network
    groups: dict[int, list[str]] = {}
    if hasattr(network, "group_matcher"):
        # timm puts what no pattern matches into a last group without saying so: a name that matches none shows which.
        named = chain(network.named_parameters(), [("", None)])
        groups = group_with_matcher(named, network.group_matcher(coarse=True))
    divided = [groups[index] for index in sorted(groups) if "" not in groups[index]]
    if not divided:
        raise ValueError(f"backbone {backbone.name!r} is not divided into stages, so none can be frozen")
    return divided


def _takes_none(module: nn.Module) -> bool:
    """Whether ``module`` has parameters and none of them takes a gradient."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
