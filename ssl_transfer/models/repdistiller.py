"""Weights of RepDistiller's networks (github.com/HobbitLong/RepDistiller) in ours: same layers, other names."""

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

# RepDistiller's name of a network -> its name here.
NAMES = {
    **{f"resnet{depth}": f"cifar_resnet{depth}" for depth in ("8", "14", "20", "32", "44", "56", "110", "8x4", "32x4")},
    **{f"wrn_{size}": f"cifar_wrn{size}" for size in ("16_1", "16_2", "40_1", "40_2")},
    **{f"vgg{depth}": f"cifar_vgg{depth}" for depth in (8, 11, 13)},
    "ResNet50": "cifar_resnet50",
    "MobileNetV2": "cifar_mobilenetv2_half",
    "ShuffleV1": "cifar_shufflenet_v1",
    "ShuffleV2": "cifar_shufflenet_v2",
}


def repdistiller_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of ``network``, a :class:`~ssl_transfer.models.small.SmallNet`, with RepDistiller's values.

    ``weights`` is the entry ``model`` of its checkpoint; see :func:`pair_in_order`. Counters of batch-norm steps are
    left as they are.

    Raises:
        ValueError: the weights are of another network, or not in their original order.
    """
    pairs = pair_in_order(network, weights)
    return network.state_dict() | {own: weights[theirs] for own, theirs in pairs.items()}


def pair_in_order(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """For each weight of ``network`` the name that it has in ``weights``, a state dict of the same layers.

    Both list the layers in the order of the forward pass, so the tensors are paired in order. A state dict whose order
    was lost (sorted, for instance) is refused, since a bias then comes before its weight. Counters of batch-norm steps,
    which old versions of torch did not save, are left out.

    Raises:
        ValueError: the weights are of another network, or not in their original order.
    """
    own = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    theirs = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    if len(own) != len(theirs):
        raise ValueError(
            f"the checkpoint has {len(theirs)} tensors, this network {len(own)}: {_difference(own, theirs)}"
        )
    for ours, other in zip(own, theirs, strict=True):
        same_role = ours.rpartition(".")[2] == other.rpartition(".")[2]
        if not same_role or own[ours].shape != theirs[other].shape:
            raise ValueError(
                f"the checkpoint's {other} {tuple(theirs[other].shape)} stands where this network has {ours} "
                f"{tuple(own[ours].shape)}: build the same network, and give the weights in their original order"
            )
    return dict(zip(own, theirs, strict=True))


def _difference(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """Which layers one of two networks has more of than the other, told by the shapes of their weights."""
    missing, extra = _more(own, theirs), _more(theirs, own)
    parts = [f"this network has {missing}"] if missing else []
    parts += [f"the checkpoint has {extra}"] if extra else []
    return f"{' and '.join(parts)}; build the same network"


def _more(these: Mapping[str, Tensor], those: Mapping[str, Tensor]) -> str:
    """What ``these`` have more of than ``those``, by shape, with the last name of each; convolutions if they differ."""
    kernels = [{name: value for name, value in each.items() if value.ndim > 1} for each in (these, those)]
    one, other = (Counter(value.shape for value in each.values()) for each in kernels)
    if one == other:
        one, other = (Counter(value.shape for value in each.values()) for each in (these, those))
    names = {value.shape: name for name, value in these.items()}
    shown = [f"{count} more of shape {tuple(shape)} as {names[shape]}" for shape, count in (one - other).items()]
    return ", ".join(shown[:4]) + (f" and others of {len(shown) - 4} shapes" if len(shown) > 4 else "")
