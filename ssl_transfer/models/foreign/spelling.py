"""From a tool's names for the weights of a backbone to those of timm's network.

Torchvision's and timm's ResNets use the same names. What differs is found by trying the spellings known here, and
after them timm's own conversion of the files that the authors of a family published.
"""

import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping

import timm
from torch import Tensor, nn

from ssl_transfer.models.repdistiller import pair_in_order
from ssl_transfer.models.small import SmallNet

Weights = Mapping[str, Tensor]
Names = dict[str, str]  # the network's name of a weight -> the file's


def spellings(weights: Weights, network: nn.Module) -> Iterator[Callable[[], Names]]:
    """The ways to read the names of ``weights`` as those of ``network``, likely ones first.

    Each raises ValueError where it sees that the weights are of another network.
    """
    yield lambda: {name: name for name in weights}
    if isinstance(network, SmallNet):
        yield lambda: {_of_cifar_resnet(name): name for name in weights}
        yield lambda: _in_order(weights, network)
        return
    yield lambda: {_shortcut(name): name for name in weights}
    if any(re.match(r"\d+\.", name) for name in weights):
        yield lambda: _numbered(weights)
    if "_conv_stem.weight" in weights:
        yield lambda: _efficientnet_pytorch(weights, network)


def _shortcut(name: str) -> str:
    """ResNets after kuangliu's, as in SupContrast and lightly: ``shortcut`` for ``downsample``."""
    return name.replace(".shortcut.", ".downsample.")


def _numbered(weights: Weights) -> Names:
    """``nn.Sequential(*resnet.children())``, as in lightly's examples: a number for each part that has weights.

    What has no weights (ReLU, pooling) leaves a gap in the numbers, so they count by their order.
    """
    parts = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    numbers = sorted({int(name.partition(".")[0]) for name in weights if re.match(r"\d+\.", name)})
    if len(numbers) < len(parts):
        return {name: name for name in weights}
    renamed = {str(number): part for number, part in zip(numbers, parts, strict=False)}
    return {
        _shortcut(".".join([renamed.get(first, first), *rest])): name
        for name in weights
        for first, *rest in [name.split(".")]
    }


def lacks_first_activation(weights: Weights) -> bool:
    """Whether a numbered ResNet goes from batch norm to its first layer with nothing, not even a ReLU, between."""
    return any(name.startswith("2.0.conv1") for name in weights)


def _of_cifar_resnet(name: str) -> str:
    """CIFAR ResNets as most programs name them, in the names of :mod:`ssl_transfer.models.small`.

    By name rather than by order, since safetensors keeps none.
    """
    first, *rest = name.split(".")
    stage = re.fullmatch(r"(?:layer|stage_)(\d)", first)
    ours = f"stages.{int(stage[1]) - 1}" if stage else _CIFAR_STEM.get(first, first)
    return ".".join([ours, *(_CIFAR_BLOCK.get(part, part) for part in rest)])


_CIFAR_STEM = {"conv1": "stem", "bn1": "stem_norm.0", "conv_1_3x3": "stem", "bn_1": "stem_norm.0"}
_CIFAR_BLOCK = {"downsample": "shortcut", "conv_a": "conv1", "bn_a": "bn1", "conv_b": "conv2", "bn_b": "bn2"}


def _in_order(weights: Weights, network: SmallNet) -> Names:
    """CIFAR networks by any names as ours of :mod:`ssl_transfer.models.small`: the same layers in the same order.

    The only linear layers of such a network are its classifier, which is left out.
    """
    linear = {name.rpartition(".")[0] for name, tensor in weights.items() if tensor.ndim == 2}
    convolutional = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[0] not in linear}
    pairs = pair_in_order(network, convolutional)
    return pairs | {name: name for name in weights if name not in pairs.values()}


def _efficientnet_pytorch(weights: Weights, network: nn.Module) -> Names:
    """EfficientNet-PyTorch (lukemelas) and its descendants: blocks by one number, parts by other names."""
    if type(getattr(network, "conv_stem", None)).__name__ != "Conv2dSame":
        raise ValueError(
            "it has the names of EfficientNet-PyTorch, which pads as TensorFlow does: write a backbone named "
            "tf_..., such as tf_efficientnet_b0 or tf_efficientnet_lite0"
        )
    stages: list[list[nn.Module]] = [list(stage) for stage in network.blocks]  # type: ignore[union-attr]
    places = [f"blocks.{index}.{depth}" for index, blocks in enumerate(stages) for depth in range(len(blocks))]
    names = {}
    for name in weights:
        found = re.match(r"_blocks\.(\d+)\.(\w+)\.(\w+)$", name)
        if found is None or int(found[1]) >= len(places):
            part, _, role = name.rpartition(".")
            names[f"{_EFFICIENTNET.get(part, part)}.{role}"] = name
            continue
        widens = f"_blocks.{found[1]}._expand_conv.weight" in weights
        part = (_WIDENING if widens else _NOT_WIDENING).get(found[2], found[2])
        names[f"{places[int(found[1])]}.{part}.{found[3]}"] = name
    return names


_EFFICIENTNET = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXCITATION = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_WIDENING = _EXCITATION | {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1"},
    **{"_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}
_NOT_WIDENING = _EXCITATION | {
    **{"_depthwise_conv": "conv_dw", "_bn1": "bn1"},
    **{"_project_conv": "conv_pw", "_bn2": "bn2"},
}


def published_conversion(name: str, network: nn.Module, weights: Weights) -> dict[str, Tensor] | None:
    """What timm makes of the weights that the authors of the family of ``network``, timm's ``name``, published.

    Most families of timm bring a function that timm runs over any file it loads: old names and those of the authors
    become its own, buffers that are computed are dropped, position embeddings are interpolated to the network's size.
    None where the family has none, or where it fails on these weights. Kernels of another size are not interpolated
    here: such a file is of another network.
    """
    if "flexi" in name or "radio" in name:  # timm interpolates these in a way of their own
        return None
    module = sys.modules[timm.model_entrypoint(name).__module__]
    known = (getattr(module, each, None) for each in ("checkpoint_filter_fn", "_filter_fn", _OF_DENSENET))
    convert = next((each for each in known if each is not None), None)
    if convert is None:
        return None
    arguments = (dict(weights), network)[: len(inspect.signature(convert).parameters)]
    options = {"adapt_layer_scale": True} if module.__name__.endswith(".deit") else {}  # as timm does it there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks about timm's interpolation
            converted = convert(*arguments, **options)
    except Exception:  # these functions assume a file of their family, and fail in any way on another
        return None
    kernels = {f"{path}.weight" for path, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    return {
        key: weights[key] if key in kernels and key in weights and weights[key].ndim == 4 else value
        for key, value in converted.items()
    }


_OF_DENSENET = "_filter_torchvision_pretrained"
