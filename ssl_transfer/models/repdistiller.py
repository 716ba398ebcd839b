"""Weights of RepDistiller's networks (github.com/HobbitLong/RepDistiller) in ours: same layers, other names."""

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

    ``weights`` is the entry ``model`` of its checkpoint. Both list the same layers in the order of the forward pass,
    so the tensors are paired in order. A state dict whose order was lost (sorted, for instance) is refused, since a
    bias then comes before its weight. Counters of batch-norm steps, which old versions of torch did not save, are
    left as they are.

    Raises:
        ValueError: the weights are of another network, or not in their original order.
    """
    own = network.state_dict()
    names = [name for name in own if not name.endswith("num_batches_tracked")]
    theirs = [name for name in weights if not name.endswith("num_batches_tracked")]
    if len(names) != len(theirs):
        raise ValueError(f"the checkpoint has {len(theirs)} tensors, this network {len(names)}: build the same network")
    for ours, other in zip(names, theirs, strict=True):
        same_role = ours.rpartition(".")[2] == other.rpartition(".")[2]
        if not same_role or own[ours].shape != weights[other].shape:
            raise ValueError(
                f"the checkpoint's {other} {tuple(weights[other].shape)} stands where this network has {ours} "
                f"{tuple(own[ours].shape)}: build the same network, and give the weights in their original order"
            )
        own[ours] = weights[other]
    return own
