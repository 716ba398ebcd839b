"""A teacher from another tool's checkpoint, checked weight by weight."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor

from ssl_transfer.catalog.checkpoint_formats import Format, by_name, recognize
from ssl_transfer.models.backbones import Backbone, create_backbone
from ssl_transfer.models.embedding import EmbeddingModel
from ssl_transfer.models.foreign import adaptations
from ssl_transfer.models.foreign.fitting import COUNTER
from ssl_transfer.models.foreign.places import Place, choose, places, prefixes
from ssl_transfer.models.foreign.reading import Checkpoint, read_checkpoint, unwrapped
from ssl_transfer.models.foreign.spelling import lacks_first_activation
from ssl_transfer.models.perceptron import Perceptron
from ssl_transfer.models.small import ARCHITECTURES


@dataclass(frozen=True)
class LoadReport:
    """What became of each weight of a file, and what was assumed that the file does not say."""

    format: str
    prefix: str  # of the backbone's weights in the file
    matched: int  # weights and statistics of the network that the file gave; none is missing
    resized: tuple[str, ...]  # names in the network of what was interpolated to its image size
    others: tuple[str, ...]  # prefixes of other weights of the same network
    left_over: tuple[str, ...]  # names in the file that went nowhere
    assumed: tuple[str, ...]  # what the tool does and its file does not say, in words
    head: tuple[int, ...] | None  # the widths of the projection head
    no_projection: str  # why there is none, empty where there is one

    def lines(self) -> list[str]:
        """The report for a person, a sentence a line."""
        groups = Counter(name.partition(".")[0] for name in self.left_over)
        left = ", ".join(f"{group} ({count})" for group, count in groups.most_common(8))
        if len(groups) > 8:
            left += f", and {len(self.left_over) - sum(count for _, count in groups.most_common(8))} others"
        lines = [
            f"The file was read in the format {self.format}, and the backbone "
            + (f"below {self.prefix} in it." if self.prefix else "at the top of it."),
            f"All {self.matched} weights of the backbone were found.",
        ]
        if self.resized:
            more = f" and {len(self.resized) - 2} more" if len(self.resized) > 2 else ""
            lines.append(f"Interpolated to the size of the images: {', '.join(self.resized[:2])}{more}.")
        if self.others:
            lines.append(f"Other weights of this network, not taken (name one as prefix): {', '.join(self.others)}.")
        if self.assumed:
            lines.append(f"Assumed, as {self.format} does it: {'; '.join(self.assumed)}.")
        if self.head:
            lines.append(f"The projection head is {' -> '.join(map(str, self.head))} wide.")
        else:
            lines.append(f"There is no projection head: {self.no_projection}.")
        return [*lines, f"Left over in the file: {left or 'nothing'}."]


def load_foreign(
    path: Path | str,
    *,
    backbone: str,
    format: str = "auto",  # noqa: A002  (the recipe's own word)
    prefix: str | None = None,
    stem: str = "default",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    image_size: int | None = None,
) -> tuple[EmbeddingModel, LoadReport]:
    """The model in a checkpoint of another tool, with its projection head if it has one that is known, and a report.

    ``backbone`` is timm's name of the network in the file, ``stem`` the one it was trained with. ``format`` is one of
    :data:`ssl_transfer.catalog.checkpoint_formats.FORMATS`; ``auto`` finds it by the names of the weights, and what a
    tool does that its file does not say is then assumed only if the names are nobody else's. ``prefix`` is the dotted
    name below which the backbone's weights are, where there are several. ``mean``, ``std`` and ``image_size`` are those
    the tool trained with; they may be left out where the format fixes them. The model is in eval mode, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, would run code, does not hold every weight of the backbone, or can be read in
            more than one way; the sentence says what to write.
    """
    path = Path(path).expanduser()
    checkpoint = read_checkpoint(path)
    tensors = checkpoint.tensors
    tool = _recognized(tensors, format, prefix, path)
    assumed = _assumed_preprocessing(tool, small=stem == "cifar" or backbone in ARCHITECTURES)
    stated = {"mean": mean, "std": std, "image_size": image_size}
    stated = {key: value for key, value in stated.items() if value is not None}
    prepared = {**assumed, **stated}
    if missing := [key for key in ("mean", "std", "image_size") if key not in prepared]:
        raise ValueError(_about_missing(path, tool, missing))

    model = create_backbone(backbone, stem=stem, in_chans=len(prepared["mean"]), **prepared)
    place, others, padded = _find(model, checkpoint, tool, path, stem)
    words = [_in_words(key, value) for key, value in assumed.items() if key not in stated]
    words += _adapt(model, tool, checkpoint.arch, padded, path)
    if lacks_first_activation(_below(tensors, place.prefix)):
        adaptations.no_first_activation(model.network)
    model.network.load_state_dict({**model.network.state_dict(), **place.fit.state})
    head, head_prefix, no_projection = _head(tool, tensors, model.num_features)
    if head is not None:
        words.append("ReLU between the layers of the projection head")
    left_over = [
        _relative(name, place.prefix)
        for name in tensors
        if name not in place.fit.used
        and not (head is not None and name.startswith(head_prefix))
        and not name.endswith(COUNTER)
    ]
    general = "plain" if place.prefix in ("", "state_dict.", "model.") else "wrapped"
    report = LoadReport(
        format=tool.row.name if tool.known else general,
        prefix=place.prefix.removesuffix("."),
        matched=len(place.fit.state),
        resized=place.fit.resized,
        others=tuple(other.prefix.removesuffix(".") or '""' for other in others),
        left_over=tuple(left_over),
        assumed=tuple(words),
        head=tuple(head.widths) if head else None,
        no_projection=no_projection,
    )
    return EmbeddingModel(model, head).eval(), report


@dataclass(frozen=True)
class _Tool:
    """Who may have saved a file."""

    row: Format
    known: bool  # whether what the row knows beyond names is assumed: the format was named, or its names are its own
    named: bool
    region: str  # the backbone's weights are below it; empty: anywhere
    asked: bool  # whether a person gave the region as prefix
    heads: tuple[str, ...]  # where the row's projection head would be


def _recognized(tensors: Mapping[str, Tensor], format: str, prefix: str | None, path: Path) -> _Tool:  # noqa: A002
    given = None if prefix is None else _given_prefix(tensors, prefix, path)
    sure = recognize(tensors, everyday=False)
    likely = sure or recognize(tensors, everyday=True)
    place: tuple[str, str] | None
    if format == "auto":
        row, place = (likely[0], likely[1:]) if likely else (by_name("plain"), None)
        known = sure is not None
    else:
        row = by_name(format)
        place, known = row.place(tensors), bool(row.backbone)  # plain and wrapped know nothing
        if place is None and given is None and row.backbone not in ((), ("",)):
            raise ValueError(
                f"{path} is no checkpoint of format {format}, whose backbone is below {' or '.join(row.backbone)}: "
                + (f"it looks like {likely[0].name}, " if likely else "")
                + "write format: auto, or the prefix below which its weights are"
            )
    container, own_prefix = place or ("", "")
    base = container + own_prefix if given is None else given
    heads = [
        base + head[len(own_prefix) :] if head.startswith(own_prefix) else container + head
        for head in row.head
        if head.startswith(own_prefix) or given is None  # a head beside the backbone is not another backbone's
    ]
    region = base if known or given is not None else ""
    return _Tool(row, known, format != "auto", region, given is not None, tuple(heads))


def _given_prefix(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> str:
    """The prefix in the file that a person means by ``prefix``, who may leave out its beginning."""
    existing = dict.fromkeys(start for name in tensors for start in prefixes(name))
    for meant in (f"{prefix.strip('.')}.".removeprefix("."), f"{unwrapped(prefix.strip('.'))}.".removeprefix(".")):
        if meant in existing:
            return meant
    ends = [start for start in existing if start.endswith(f".{meant}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        there = ", ".join(start.removesuffix(".") for start in ends)
        raise ValueError(f"{path} has prefix {prefix!r} more than once: write one of {there}")
    top = ", ".join(dict.fromkeys(name.partition(".")[0] for name in tensors))
    raise ValueError(f"{path} has nothing below prefix {prefix!r}: its names begin with {shorten(top, 160)}")


def _assumed_preprocessing(tool: _Tool, *, small: bool) -> dict[str, Any]:
    """What the tool fixes; where a network for small images is asked for, what it fixes for large ones is no help."""
    fixed = tool.row.preprocessing
    return {} if not tool.known or (small and "image_size" in fixed) else fixed


def _about_missing(path: Path, tool: _Tool, missing: list[str]) -> str:
    name = tool.row.name if tool.known else "plain"
    sentence = (
        f"{path} (format {name}) does not say how its images were prepared: write {', '.join(missing)} as they were in "
        "its training"
    )
    if not tool.known and tool.row.preprocessing:
        keys = " and ".join(tool.row.preprocessing)
        sentence += f", or format: {tool.row.name} if it was saved by that tool, whose {keys} are known"
    return sentence


def _find(
    model: Backbone, checkpoint: Checkpoint, tool: _Tool, path: Path, stem: str
) -> tuple[Place, list[Place], bool]:
    """Where the weights of ``model`` are, where others of it are, and whether its shortcuts had to lose theirs."""
    tensors = checkpoint.tensors
    within = {name: tensor for name, tensor in tensors.items() if name.startswith(tool.region)}
    found, misfit = places(within, model, stem)
    padded = not found and adaptations.without_shortcut_weights(model.network)
    if padded:
        found, _ = places(within, model, stem)
    if not found:
        other = checkpoint.arch not in (None, model.name)
        raise ValueError(f"{path} {misfit}" + (f" (the file says arch: {checkpoint.arch})" if other else ""))
    try:
        place = choose([each for each in found if tool.asked and each.prefix == tool.region] or found)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    if broken := [name for name, value in place.fit.state.items() if not value.float().isfinite().all()]:
        raise ValueError(
            f"{path} has weights that are not finite, the first is {broken[0]} of {model.name}: its training diverged, "
            "take an earlier checkpoint"
        )
    outside, _ = places({name: tensor for name, tensor in tensors.items() if name not in within}, model, stem)
    return place, [each for each in found + outside if each.differs_from(place)], padded


def _adapt(model: Backbone, tool: _Tool, arch: str | None, padded: bool, path: Path) -> list[str]:
    """Change the network to what the tool's computes, and say how.

    Raises:
        ValueError: the file does not show whether it is of that tool.
    """
    row = tool.row
    changed = getattr(adaptations, row.adapt)(model.network) if row.adapt else ""
    if padded and not changed:
        raise ValueError(
            f"{path} has shortcuts without weights (option A of He et al.), and does not say where their zeros stand: "
            "write format: akamaster if on both sides of the channels, as most programs do it, or "
            "format: resnext-densenet if behind them"
        )
    certain = tool.known and (tool.named or not row.arch or arch in row.arch)
    if changed and not certain:
        raise ValueError(
            f"{path} may have been saved by {row.name}, whose network has {changed}, or by another program: write "
            f"format: {row.name}, or format: plain for the network as timm has it"
        )
    return [changed] if changed else []


def _head(tool: _Tool, tensors: Mapping[str, Tensor], num_features: int) -> tuple[Perceptron | None, str, str]:
    """The projection head and its prefix, or why there is none."""
    for prefix in tool.heads:
        weights = _below(tensors, prefix)
        if not weights:
            continue
        if not tool.known:
            sentence = (
                "a file does not say which activations its head has: write format: {} if it was saved by that tool"
            )
            return None, prefix, sentence.format(tool.row.name)
        try:
            head = Perceptron(weights)
        except (ValueError, RuntimeError) as error:
            return None, prefix, " ".join(str(error).split())
        if head.widths[0] != num_features:
            return None, prefix, f"the one in the file takes {head.widths[0]} features, the backbone has {num_features}"
        return head, prefix, ""
    if tool.row.head:
        return None, "", "the file has none"
    return None, "", f"heads of format {tool.row.name} are not loaded"


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _relative(name: str, prefix: str) -> str:
    """A name without what it has in common with the backbone's."""
    return name[max(len(start) for start in prefixes(prefix) if name.startswith(start)) :]


def _in_words(key: str, value: Any) -> str:
    return f"images of {value} px" if key == "image_size" else f"{key} {value}"
