"""A teacher from another tool's checkpoint, checked weight by weight."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ssl_transfer.catalog.checkpoint_formats import Format, by_name, recognize
from ssl_transfer.models.backbones import Backbone, create_backbone
from ssl_transfer.models.embedding import EmbeddingModel
from ssl_transfer.models.foreign import adaptations
from ssl_transfer.models.foreign.reading import read_tensors
from ssl_transfer.models.foreign.spelling import in_order, lacks_first_activation, nearest_spelling, numbered, shortcut
from ssl_transfer.models.perceptron import Perceptron
from ssl_transfer.models.small import SmallNet


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight of a file."""

    format: str
    prefix: str  # of the backbone's weights in the file
    matched: int  # weights and statistics of the network that the file gave; none is missing
    left_over: tuple[str, ...]  # names in the file that went nowhere
    head: tuple[int, ...] | None  # the widths of the projection head
    no_projection: str  # why there is none, empty where there is one

    def lines(self) -> list[str]:
        """The report for a person."""
        head = " -> ".join(map(str, self.head)) if self.head else f"none ({self.no_projection})"
        groups = Counter(name.partition(".")[0] for name in self.left_over)
        left = ", ".join(f"{group} ({count})" for group, count in groups.most_common(8)) or "nothing"
        return [
            f"format: {self.format}, backbone below {self.prefix or 'the top'}",
            f"backbone: all {self.matched} weights matched, none missing",
            f"projection head: {head}",
            f"left over in the file: {left}",
        ]


def load_foreign(
    path: Path,
    *,
    backbone: str,
    format: str = "auto",  # noqa: A002  (the recipe's own word)
    stem: str = "default",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    image_size: int | None = None,
) -> tuple[EmbeddingModel, LoadReport]:
    """The model in ``path``: the timm network named ``backbone`` with the file's weights, and its head if there is one.

    ``mean``, ``std`` and ``image_size`` are those the tool trained with; they may be left out where the format fixes
    them. The model is in eval mode, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, would run code, or does not hold every weight of the backbone.
    """
    tensors = read_tensors(path)
    row, container, prefix = _place(tensors, format, path)
    inside = {name[len(container) :]: tensor for name, tensor in tensors.items() if name.startswith(container)}
    given = {name[len(prefix) :]: tensor for name, tensor in inside.items() if name.startswith(prefix)}
    model = create_backbone(backbone, stem=stem, **_preprocessing(row, path, mean, std, image_size))
    if row.adapt is not None:
        getattr(adaptations, row.adapt)(model.network)
    if lacks_first_activation(given):
        adaptations.no_first_activation(model.network)
    used = _fill(model, given, path, stem)
    head, head_prefix, no_projection = _head(row, inside, model.num_features)
    left_over = [
        name
        for name in inside
        if not (name.startswith(prefix) and name[len(prefix) :] in used)
        and not (head is not None and name.startswith(head_prefix))
        and not name.endswith("num_batches_tracked")  # a counter
    ]
    report = LoadReport(
        row.name,
        (container + prefix).rstrip("."),
        len(used),
        tuple(left_over),
        tuple(head.widths) if head else None,
        no_projection,
    )
    return EmbeddingModel(model, head).eval(), report


def _place(tensors: Mapping[str, Tensor], format: str, path: Path) -> tuple[Format, str, str]:  # noqa: A002
    if format == "auto":
        return recognize(tensors)
    row = by_name(format)
    place = row.place(tensors)
    if place is None:
        found = recognize(tensors)[0].name
        raise ValueError(
            f"{path} is no checkpoint of format {format}, whose backbone stands below {' or '.join(row.backbone)}: "
            f"it looks like {found}, write format: auto"
        )
    return row, *place


def _preprocessing(
    row: Format,
    path: Path,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    image_size: int | None,
) -> dict:
    stated = {"mean": mean, "std": std, "image_size": image_size}
    known = {**row.preprocessing, **{key: value for key, value in stated.items() if value is not None}}
    missing = [key for key in stated if key not in known]
    if missing:
        raise ValueError(
            f"{path} (format {row.name}) does not say how its images were prepared: write {', '.join(missing)} "
            "as they were in its training"
        )
    return {**known, "in_chans": len(known["mean"])}


def _fill(backbone: Backbone, given: Mapping[str, Tensor], path: Path, stem: str) -> set[str]:
    """Load ``given`` into the network; the names of ``given`` that were used."""
    network, wanted = backbone.network, backbone.network.state_dict()
    try:
        spelled = in_order(given, network) if isinstance(network, SmallNet) else nearest_spelling(given, wanted)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {backbone.name}: {error}") from None
    names = dict(zip(spelled, given, strict=True))
    if absent := [name for name in wanted if name not in spelled and not name.endswith("num_batches_tracked")]:
        near = difflib.get_close_matches(absent[0], list(spelled), n=2, cutoff=0.0)
        raise ValueError(
            f"{path} lacks {len(absent)} of the {len(wanted)} weights of {backbone.name}, the first is {absent[0]}; "
            f"the nearest it has are {' and '.join(names[name] for name in near)}{_advice(given, backbone.name)}"
        )
    state = {name: _one_group(spelled[name], value) for name, value in wanted.items() if name in spelled}
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            advice = _advice(given, backbone.name)
            if name == "conv1.weight":
                other = "cifar" if stem == "default" else "default"
                advice = f"; write stem: {other} if its kernel is of that stem" + advice
            raise ValueError(
                f"{path} has {names[name]} of shape {tuple(tensor.shape)}, where {backbone.name} has "
                f"{tuple(wanted[name].shape)}{advice}"
            )
    own_parts = {name.partition(".")[0] for name in wanted}
    classifier = tuple(_classifiers(network))
    if extra := [
        name
        for name in spelled
        if name not in wanted and name.partition(".")[0] in own_parts and not name.startswith(classifier)
    ]:
        raise ValueError(
            f"{path} is of a larger network than {backbone.name}: {len(extra)} weights are left over, the first is "
            f"{names[extra[0]]}{_advice(given, backbone.name)}"
        )
    network.load_state_dict({**wanted, **state})
    return {names[name] for name in state}


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


RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def _advice(given: Mapping[str, Tensor], asked: str) -> str:
    """Which ResNet the file holds, where it is one and not the one asked for."""
    for spelled in (shortcut(given), numbered(given)):
        blocks = {found.groups() for name in spelled if (found := re.match(r"layer([1-4])\.(\d+)\.", name))}
        depth = tuple(sum(layer == str(number) for layer, _ in blocks) for number in range(1, 5))
        name = RESNETS.get((depth, "layer1.0.conv3.weight" in spelled))
        if name is not None and name != asked:
            return f"; by its blocks it is a {name}: write backbone: {name}"
    return ""


def _head(row: Format, inside: Mapping[str, Tensor], num_features: int) -> tuple[Perceptron | None, str, str]:
    for prefix in row.head:
        weights = {name[len(prefix) :]: tensor for name, tensor in inside.items() if name.startswith(prefix)}
        if not weights:
            continue
        try:
            head = Perceptron(weights)
        except (ValueError, RuntimeError) as error:
            return None, prefix, " ".join(str(error).split())
        if head.widths[0] != num_features:
            return None, prefix, f"the one in the file takes {head.widths[0]} features, the backbone has {num_features}"
        return head, prefix, ""
    if row.head:
        return None, "", "the file has none"
    return None, "", f"heads of format {row.name} are not loaded"
