"""The command line of the programs in ``eval/``: what they are pointed at, and how they print what they find.

A program is this and one kind of score. It runs alone or under ``accelerate launch``; several processes share the work
of computing features and print the same numbers as one.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from accelerate import PartialState
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ssl_transfer import config, runs
from ssl_transfer.building.data import read_images, scored_part, scored_splits
from ssl_transfer.context import device_name, join_processes, versions
from ssl_transfer.data import Images, load_images
from ssl_transfer.distributed import main_process_first
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.features.extraction import exact
from ssl_transfer.features.model_features import ModelFeatures, features_of
from ssl_transfer.files import write_json
from ssl_transfer.models import EmbeddingModel, load_foreign, timm_pretrained, torchvision_pretrained
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.probes import load_feature_file
from ssl_transfer.program import ends_in_a_sentence
from ssl_transfer.scores.base import Measuring, ScoreSection
from ssl_transfer.scores.score import Score
from ssl_transfer.section import path_argument
from ssl_transfer.watch import stop_watching

_PUBLISHED = ("timm", "torchvision", "file")


def evaluate(program: str, section: type[ScoreSection]) -> None:
    """Read the command line, get the features it names, print the scores of ``section`` and write them with ``--json``.

    The program's options are the section's keys, so their defaults and what they may be stand in one place. Several
    processes share the work of computing features; the main one measures, or all where the section asks for it. A
    user's mistake is one message and exit code 2.
    """
    given = _parser(program, section).parse_args()
    with ends_in_a_sentence(Path(sys.argv[0]).name):
        join_processes()
        with user_mistakes():
            asked = _asked(section, given)
            main = PartialState().is_main_process
            features = load_features(_source(given), given, train_features=section.reads_training_features)
            teachers = [load_features(given.teacher, given, train_features=False)] if section.needs_teacher else []
            with exact():
                measured = main or asked.needs_all_processes
                scores = asked.measure(features, Measuring(given.seed, teachers)) if measured else []
            if main:
                print("\n".join(_lines(features, scores)))
                if given.json is not None:
                    write_json(given.json, _report(program, scores))
        stop_watching()  # the main process may measure for long yet, and the others are done
        PartialState().destroy_process_group()


def _options(section: type[ScoreSection]) -> dict[str, FieldInfo]:
    """The section's keys that a program has options for; the layer is one of every program."""
    return {key: field for key, field in section.model_fields.items() if key not in ("kind", "layer")}


def _add_option(parser: argparse.ArgumentParser, section: type[ScoreSection], key: str, field: FieldInfo) -> None:
    name, default = key.replace("_", "-"), field.default
    words = field.description or ""
    if isinstance(default, bool):  # an option that says the opposite of the default
        names = [f"--no-{name}" if default else f"--{name}", *filter(None, [section.flags.get(key)])]
        parser.add_argument(*names, dest=key, action="store_const", const=not default, help=words)
        return
    many = any(get_origin(kind) is tuple for kind in (field.annotation, *get_args(field.annotation)))
    several = {"nargs": "*"} if many else {}
    choices = [repr(choice).strip("'") for choice in get_args(field.annotation)]
    if get_origin(field.annotation) is Literal:
        words += f"; one of {', '.join(choices)}"
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    parser.add_argument(
        f"--{name}",
        dest=key,
        type=_value,
        metavar=name.rpartition("-")[2].upper(),
        help=f"{words}; default: {shown}" if shown not in (None, "") else words,
        **several,  # type: ignore[arg-type]
    )


def _path(text: str) -> Path:
    return Path(path_argument(text))


def _value(text: str) -> Any:
    """A number or a word, as in a recipe."""
    return config.parse(text)


def _asked(section: type[ScoreSection], given: argparse.Namespace) -> ScoreSection:
    """The section as the options fill it.

    Raises:
        UserError: with every option that cannot be.
    """
    values = {key: getattr(given, key) for key in _options(section) if getattr(given, key) is not None}
    try:
        return section(**values)
    except ValidationError as error:
        problems = config.problems_of(error, values, section)
        raise UserError(
            "; ".join(f"--{problem}" if problem[:1].islower() else problem for problem in problems)
        ) from None


def load_features(source: str, given: argparse.Namespace, *, train_features: bool = True) -> ModelFeatures:
    """The features of ``source``: a run or exported folder, an npz file of features, or ``KIND:NAME``.

    The kinds are ``timm`` and ``torchvision``, pretrained networks, and ``file``, a checkpoint of another tool.
    """
    if source.endswith(".npz"):
        features = load_feature_file(source)
        sizes = {"n_train": len(features.train_x), "n_test": len(features.test_x)}
        return ModelFeatures(source, features, {"layer": "as saved", "width": features.train_x.shape[1], **sizes})
    kind, _, name = source.partition(":")
    folder = None if kind in _PUBLISHED else Path(source)
    splits = _splits(folder, given)
    with main_process_first():  # one process downloads published weights
        model = load_model(folder)[0] if folder is not None else _published(kind, name, given)
    cache = given.cache or _own_cache(folder)
    return features_of(source, model.eval(), splits, layer=given.layer, train_features=train_features, cache=cache)


def _parser(program: str, section: type[ScoreSection]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=program, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=path_argument, nargs="?", help="a run or exported folder, such as runs/digits-transfer"
    )
    parser.add_argument("--timm", metavar="NAME", help="a timm network with its pretrained weights instead")
    parser.add_argument("--torchvision", metavar="NAME", help="a torchvision network with its pretrained weights")
    parser.add_argument(
        "--file", type=path_argument, metavar="FILE", help="a checkpoint of another tool; needs --backbone"
    )
    parser.add_argument("--backbone", metavar="NAME", help="timm's name of the network in --file")
    parser.add_argument("--format", default="auto", help="the tool that saved --file; default: by its names")
    parser.add_argument("--prefix", help="the name in --file below which its weights are, if they are there twice")
    parser.add_argument("--stem", default="default", choices=["default", "cifar"], help="of the network in --file")
    parser.add_argument("--mean", type=float, nargs="+", help="of a published network, where it is not known or other")
    parser.add_argument("--std", type=float, nargs="+", help="likewise")
    parser.add_argument("--input-size", type=int, metavar="PIXELS", help="likewise: the side of what the network sees")
    parser.add_argument(
        "--features", type=path_argument, metavar="FILE", help="an npz file: train_x, train_y, test_x, test_y"
    )
    parser.add_argument("--dataset", help="default: the one that the run was trained on")
    parser.add_argument("--root", type=_path, help="where the data set lies; default: where the run found it")
    parser.add_argument("--image-size", type=int, help="the side to which the images of files are brought")
    parser.add_argument(
        "--layer", default="features", help="features, projection, embedding, output, or a layer of the timm network"
    )
    parser.add_argument("--cache", type=_path, metavar="FOLDER", help="where features are kept; default: in the run")
    parser.add_argument("--json", type=_path, metavar="FILE", help="write the numbers with their protocol")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn: held-out images, few labels, orders")
    if section.needs_teacher:
        parser.add_argument("--teacher", required=True, help="a run folder, timm:NAME or an npz file of features")
    for key, field in _options(section).items():
        _add_option(parser, section, key, field)
    return parser


def _source(given: argparse.Namespace) -> str:
    """What one of the arguments names, as :func:`load_features` takes it."""
    named = {
        name: getattr(given, name) for name in ("run", *_PUBLISHED, "features") if getattr(given, name) is not None
    }
    if len(named) != 1:
        raise UserError(
            "name one of a run or exported folder, --timm NAME, --torchvision NAME, --file FILE or --features FILE; "
            f"given: {', '.join(named) or 'none'}"
        )
    ((kind, value),) = named.items()
    if kind == "features" and not value.endswith(".npz"):
        raise UserError(f"{value} is no npz file of features; save one with numpy.savez")
    return f"{kind}:{value}" if kind in _PUBLISHED else value


def _splits(folder: Path | None, given: argparse.Namespace) -> list[Images]:
    """Both splits of the data set that is named, or those that the run in ``folder`` was scored on."""
    state = PartialState(cpu=not torch.cuda.is_available())
    dataset, root = given.dataset, given.root
    if folder is not None and (folder / "recipe.yaml").is_file():
        recipe = runs.read_recipe(folder)
        data = recipe.data
        root = root or data.root
        if dataset in (None, data.dataset):
            placed = {"root": str(root), "image_size": given.image_size or data.image_size}
            recipe = recipe.model_copy(update={"data": data.model_copy(update=placed)})
            with main_process_first():
                splits = scored_splits(recipe, read_images)
            return [scored_part(recipe, images).to(state.device) for images in splits]
    if dataset is None:
        raise UserError(
            "name the data set to score on, such as --dataset cifar10 (with --root and, for files, --image-size)"
        )
    read = partial(load_images, dataset, root or Path("data"), download=True, image_size=given.image_size)
    with main_process_first():
        train, test = (read(split=split) for split in ("train", "test"))
    return [images.to(state.device) for images in (train, test.numbered_like(train.class_names))]


def _published(kind: str, name: str, given: argparse.Namespace) -> EmbeddingModel:
    """A network of a library or another tool, with the preprocessing it was published with."""
    prepared = {
        "mean": None if given.mean is None else tuple(given.mean),
        "std": None if given.std is None else tuple(given.std),
        "image_size": given.input_size,
    }
    if kind == "file":
        if given.backbone is None:
            raise UserError("--file needs --backbone, timm's name of the network in it, for example resnet50")
        named = {"format": given.format, "prefix": given.prefix, "stem": given.stem}
        model, report = load_foreign(Path(name), backbone=given.backbone, **named, **prepared)
        if PartialState().is_main_process:
            print("\n".join(report.lines()), file=sys.stderr)
        return model
    return EmbeddingModel({"timm": timm_pretrained, "torchvision": torchvision_pretrained}[kind](name, **prepared))


def _own_cache(folder: Path | None) -> Path | None:
    """A run keeps its features with itself; an exported model, which may be anybody's, gets nothing written into it."""
    return folder / "features" if folder is not None and (folder / "run.json").is_file() else None


def _lines(features: ModelFeatures, scores: Sequence[Score]) -> list[str]:
    """A line for the features and one for each score, with what is a word or a number of its protocol."""
    lines = [f"{features.name}  {_words(features.protocol)}"]
    for score in scores:
        spread = "" if score.sd is None else f" ± {100 * score.sd:.2f} (sd, n = {score.n})"
        own = {key: value for key, value in score.protocol.items() if key not in features.protocol}
        lines.append(f"{score.metric}  {100 * score.value:.2f} %{spread}  {_words(own)}")
    return lines


def _words(settings: dict[str, Any]) -> str:
    shown = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    return ", ".join(
        f"{key} {f'{value:.3g}' if isinstance(value, float) else value}".replace("_", " ")
        for key, value in shown.items()
    )


def _report(program: str, scores: Sequence[Score]) -> dict[str, Any]:
    return {
        "program": program.splitlines()[0],
        "device": device_name(PartialState().device),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "scores": [asdict(score) for score in scores],
    }
