"""From a tool's names for the weights of a backbone to timm's.

Torchvision's and timm's ResNets use the same names. What differs is found by trying: the spelling that gives the most
of the network's own names is the file's.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from ssl_transfer.models.repdistiller import repdistiller_weights
from ssl_transfer.models.small import SmallNet

Weights = dict[str, Tensor]


def as_is(weights: Mapping[str, Tensor]) -> Weights:
    """torchvision's and timm's own names."""
    return dict(weights)


def shortcut(weights: Mapping[str, Tensor]) -> Weights:
    """ResNets after kuangliu's, as in SupContrast and lightly: ``shortcut`` for ``downsample``."""
    return {name.replace(".shortcut.", ".downsample."): tensor for name, tensor in weights.items()}


def numbered(weights: Mapping[str, Tensor]) -> Weights:
    """``nn.Sequential(*resnet.children())``, as in lightly's examples: a number for each part that has weights.

    What has no weights (ReLU, pooling) leaves a gap in the numbers, so they count by their order.
    """
    parts = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    numbers = sorted({int(name.partition(".")[0]) for name in weights if re.match(r"\d+\.", name)})
    if len(numbers) < len(parts):
        return dict(weights)
    renamed = {str(number): part for number, part in zip(numbers, parts, strict=False)}
    return shortcut(
        {renamed.get((first := name.partition("."))[0], first[0]) + "." + first[2]: weights[name] for name in weights}
    )


def in_order(weights: Mapping[str, Tensor], network: SmallNet) -> Weights:
    """RepDistiller's networks as ours of :mod:`ssl_transfer.models.small`: the same layers in the same order.

    Raises:
        ValueError: the weights are of another network, or not in their order.
    """
    wanted = network.state_dict()
    if wanted.keys() <= weights.keys():  # our own names
        return dict(weights)
    backbone = {
        name: tensor for name, tensor in weights.items() if not name.startswith(("fc.", "classifier.", "linear."))
    }
    paired = repdistiller_weights(network, backbone)
    by_value = {id(tensor): name for name, tensor in paired.items()}
    return {by_value.get(id(tensor), name): tensor for name, tensor in weights.items()}


SPELLINGS: tuple[Callable[[Mapping[str, Tensor]], Weights], ...] = (as_is, shortcut, numbered)


def lacks_first_activation(weights: Mapping[str, Tensor]) -> bool:
    """Whether a numbered ResNet goes from batch norm to its first layer with nothing, not even a ReLU, between."""
    return any(name.startswith("2.0.conv1") for name in weights)


def nearest_spelling(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Weights:
    """``weights`` by the names of ``wanted``, as far as a known spelling gives them."""
    return max((spelling(weights) for spelling in SPELLINGS), key=lambda spelled: len(spelled.keys() & wanted.keys()))
