"""Whether the weights below one name of a file are those of a network: all of them, in their shapes, and no others."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ssl_transfer.models.backbones import Backbone
from ssl_transfer.models.foreign.spelling import Names, Weights, published_conversion, spellings

COUNTER = "num_batches_tracked"  # of batch norms: not saved by old versions of torch, and read by nothing in eval mode


@dataclass(frozen=True)
class Fit:
    """The weights of a network as a file gives them."""

    state: dict[str, Tensor]  # by the network's names
    used: frozenset[str]  # names in the file
    resized: tuple[str, ...]  # names in the network of what timm interpolated


class Misfit(ValueError):
    """Why weights are not those of a network, in a sentence that begins after "the file".

    ``matched`` says how near they come. ``missing`` is a name in the network whose nearest ``among`` the file's are
    told; they are looked for when the sentence is read, since that takes time and only one of many misfits is.
    """

    def __init__(self, sentence: str, matched: int, *, missing: str = "", among: Names | None = None, end: str = ""):
        super().__init__(sentence)
        self.sentence, self.matched, self.end = sentence, matched, end
        self.missing, self.among = missing, among or {}

    def __str__(self) -> str:
        if not self.missing:
            return self.sentence + self.end
        near = difflib.get_close_matches(self.missing, self.among, n=2, cutoff=0.0)
        named = " and ".join(self.among[name] for name in near)
        return f"{self.sentence}, the first is {self.missing}; the nearest it has are {named}{self.end}"


def fit(backbone: Backbone, given: Weights, stem: str) -> Fit:
    """The weights of ``backbone`` out of ``given``, in whichever spelling has them all.

    ``stem`` is the one that the backbone was built with, for the advice in a sentence.

    Raises:
        Misfit: no spelling has them all, or there are more of them.
    """
    misfits = []
    for read in spellings(given, backbone.network):
        try:
            names = read()
        except ValueError as error:
            nearly = len(needed(backbone.network)) - 3  # it says more than names do, unless hardly one is missing
            misfits.append(Misfit(f"does not fit {backbone.name}: {error}", nearly))
            continue
        spelled = {own: given[theirs] for own, theirs in names.items()}
        for weights in (spelled, published_conversion(backbone.name, backbone.network, spelled)):
            try:
                if weights is not None:
                    return _exactly(backbone, weights, spelled, names, stem)
            except Misfit as misfit:
                misfits.append(misfit)
    raise max(misfits, key=lambda misfit: misfit.matched)


def needed(network: nn.Module) -> list[str]:
    """The names of the weights and statistics that a file has to give: all but counters and what is computed."""
    computed = {
        f"{path}.{name}".strip(".")
        for path, module in network.named_modules()
        if "running_mean" not in module._buffers  # a norm's statistics are learned; other buffers follow from the size
        for name in module._buffers
    }
    return [name for name in network.state_dict() if not name.endswith(COUNTER) and name not in computed]


def _exactly(backbone: Backbone, weights: Weights, spelled: Weights, names: Names, stem: str) -> Fit:
    """``weights`` as those of the network; before timm's conversion they were ``spelled``, ``names`` are the file's."""
    network, wanted = backbone.network, backbone.network.state_dict()
    required = needed(network)
    absent = [name for name in required if name not in weights]
    matched, end = len(required) - len(absent), _advice(spelled, backbone.name)
    if absent:
        sentence = f"lacks {len(absent)} of the {len(required)} weights of {backbone.name}"
        raise Misfit(sentence, matched, missing=absent[0], among=names, end=end)
    state = {name: _one_group(weights[name], value) for name, value in wanted.items() if name in weights}
    for name in sorted(required, key=lambda name: wanted[name].ndim != 4):  # kernels say most about a network
        theirs, tensor = names.get(name, name), state[name]
        if tensor.shape != wanted[name].shape:
            raise Misfit(_about_shape(backbone, theirs, name, tensor, stem), matched, end=end)
        if wanted[name].is_floating_point() and not tensor.is_floating_point():
            sentence = f"has {theirs} as {tensor.dtype}: give the weights as they were before they were quantized"
            raise Misfit(sentence, matched)
    own_parts = {name.partition(".")[0] for name in wanted}
    classifier = tuple(_classifiers(network))
    extra = [
        name
        for name, tensor in weights.items()
        if name not in wanted
        and name.partition(".")[0] in own_parts
        and tensor.is_floating_point()  # tables of indices are computed: old versions of timm saved them too
        and not name.startswith(classifier)
    ]
    if extra:
        first = names.get(extra[0], extra[0])
        sentence = (
            f"is of a larger network than {backbone.name}: {len(extra)} weights are left over, the first is {first}"
        )
        raise Misfit(sentence, matched, end=end)
    state = {name: tensor for name, tensor in state.items() if tensor.shape == wanted[name].shape}
    used = frozenset(names[name] for name in _sources(state, spelled))
    interpolated = (name for name, tensor in state.items() if name in spelled and tensor.ndim > 1)
    return Fit(state, used, tuple(name for name in interpolated if spelled[name].shape != state[name].shape))


def _sources(state: Weights, spelled: Weights) -> Iterable[str]:
    """Which of the tensors in ``spelled`` are in ``state``: by name, or made of the same memory under another."""
    memory = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    return (name for name, tensor in spelled.items() if name in state or tensor.untyped_storage().data_ptr() in memory)


def _one_group(tensor: Tensor, wanted: Tensor) -> Tensor:
    """Statistics of lightly's split batch norm, kept once a split, averaged as it does itself in eval mode."""
    if tensor.ndim == wanted.ndim == 1 and len(tensor) > len(wanted) and len(tensor) % len(wanted) == 0:
        return tensor.view(-1, len(wanted)).mean(dim=0)
    return tensor


def _classifiers(network: nn.Module) -> Iterable[str]:
    """Where timm says that the classifier is, which a backbone leaves out."""
    named = getattr(network, "default_cfg", None) or {}
    classifier = named.get("classifier") or ()
    return (f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))


def _about_shape(backbone: Backbone, theirs: str, name: str, tensor: Tensor, stem: str) -> str:
    wanted = backbone.network.state_dict()[name]
    sentence = f"has {theirs} of shape {tuple(tensor.shape)}, where {backbone.name} has {tuple(wanted.shape)}"
    first = wanted.ndim == 4 and wanted.shape[1] == len(backbone.mean)
    if first and tensor.ndim == 4 and tensor[:, 0].shape == wanted[:, 0].shape:
        return f"{sentence}; it was trained on {tensor.shape[1]} channels: write mean and std with a value for each"
    if name == "conv1.weight":
        return f"{sentence}; write stem: {'cifar' if stem == 'default' else 'default'} if its kernel is of that stem"
    config = getattr(backbone.network, "default_cfg", None) or {}
    if config.get("fixed_input_size") and wanted.ndim != 4:
        return (
            f"{sentence}; if it was trained at another size than {backbone.input_size} px, write the image_size of its "
            "training, since timm does not interpolate this"
        )
    return sentence


RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def _advice(weights: Mapping[str, Tensor], asked: str) -> str:
    """Which ResNet the weights are of, where they are of one and not of the one asked for."""
    blocks = {found.groups() for name in weights if (found := re.match(r"layer([1-4])\.(\d+)\.", name))}
    depth = tuple(sum(layer == str(number) for layer, _ in blocks) for number in range(1, 5))
    name = RESNETS.get((depth, "layer1.0.conv3.weight" in weights))
    return "" if name in (None, asked) else f"; by its blocks it is a {name}: write backbone: {name}"
