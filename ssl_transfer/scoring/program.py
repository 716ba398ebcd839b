"""The command line of the programs in ``eval/``: what they are pointed at, and how they print what they find.

A program is this and one measure. It runs alone or under ``accelerate launch``; several processes share the work of
computing features and print the same numbers as one.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ssl_transfer import runs
from ssl_transfer.building.data import read_images, scored_part, scored_splits
from ssl_transfer.checkpoint import load_model
from ssl_transfer.context import PATIENCE, device_name, versions
from ssl_transfer.data import Images, load_images
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.files import write_json
from ssl_transfer.models import EmbeddingModel, load_foreign, timm_pretrained, torchvision_pretrained
from ssl_transfer.probes import load_feature_file
from ssl_transfer.scoring.features import exact
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject, make_subject

Measure = Callable[[Subject, argparse.Namespace], list[Score]]
Option = tuple[str, dict[str, Any]]

_PUBLISHED = ("timm", "torchvision", "file")


def evaluate(
    program: str,
    measure: Measure,
    *options: Option,
    train_features: bool = True,
    together: Callable[[argparse.Namespace], bool] = lambda given: False,
) -> None:
    """Read the command line, get the features it names, print what ``measure`` finds and write it with ``--json``.

    ``options`` are further arguments, as for argparse. ``train_features`` is off where the measure looks at the test
    images' features alone. The main process measures, or all do where ``together`` says so. A user's mistake is one
    message and exit code 2.
    """
    given = _parser(program, options).parse_args()
    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    try:
        with user_mistakes():
            subject = load_subject(_source(given), given, train_features=train_features)
            main = PartialState().is_main_process
            with exact():
                scores = measure(subject, given) if main or together(given) else []
            if main:
                print("\n".join(_lines(subject, scores)))
                if given.json is not None:
                    write_json(given.json, _report(program, scores))
        PartialState().destroy_process_group()
    except UserError as error:
        if PartialState().is_main_process:
            print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def load_subject(source: str, given: argparse.Namespace, *, train_features: bool = True) -> Subject:
    """The features of ``source``: a run or exported folder, an npz file of features, or ``KIND:NAME``.

    The kinds are ``timm`` and ``torchvision``, pretrained networks, and ``file``, a checkpoint of another tool.
    """
    if source.endswith(".npz"):
        features = load_feature_file(source)
        sizes = {"n_train": len(features.train_x), "n_test": len(features.test_x)}
        return Subject(source, features, {"layer": "as saved", "width": features.train_x.shape[1], **sizes})
    kind, _, name = source.partition(":")
    folder = None if kind in _PUBLISHED else Path(source)
    splits = _splits(folder, given)
    with PartialState().main_process_first():  # one process downloads published weights
        model = load_model(folder)[0] if folder is not None else _published(kind, name, given)
    cache = given.cache or _own_cache(folder)
    return make_subject(source, model.eval(), splits, layer=given.layer, train_features=train_features, cache=cache)


def _parser(program: str, options: Sequence[Option]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=program, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run or exported folder, such as runs/digits-transfer")
    parser.add_argument("--timm", metavar="NAME", help="a timm network with its pretrained weights instead")
    parser.add_argument("--torchvision", metavar="NAME", help="a torchvision network with its pretrained weights")
    parser.add_argument("--file", metavar="FILE", help="a checkpoint of another tool; needs --backbone")
    parser.add_argument("--backbone", metavar="NAME", help="timm's name of the network in --file")
    parser.add_argument("--stem", default="default", choices=["default", "cifar"], help="of the network in --file")
    parser.add_argument("--mean", type=float, nargs="+", help="of a published network, where it is not known or other")
    parser.add_argument("--std", type=float, nargs="+", help="likewise")
    parser.add_argument("--input-size", type=int, metavar="PIXELS", help="likewise: the side of what the network sees")
    parser.add_argument("--features", metavar="FILE", help="an npz file: train_x, train_y, test_x, test_y")
    parser.add_argument("--dataset", help="default: the one that the run was trained on")
    parser.add_argument("--root", type=Path, help="where the data set lies; default: where the run found it")
    parser.add_argument("--image-size", type=int, help="the side to which the images of files are brought")
    parser.add_argument(
        "--layer", default="features", help="features, projection, embedding, output, or a layer of the timm network"
    )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where features are kept; default: in the run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers with their protocol")
    for name, settings in options:
        parser.add_argument(name, **settings)
    return parser


def _source(given: argparse.Namespace) -> str:
    """What one of the arguments names, as :func:`load_subject` takes it."""
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
        root = root or Path(data.root)
        if dataset in (None, data.dataset):
            placed = {"root": str(root), "image_size": given.image_size or data.image_size}
            recipe = recipe.model_copy(update={"data": data.model_copy(update=placed)})
            with state.main_process_first():
                splits = scored_splits(recipe, partial(read_images, recipe))
            return [scored_part(recipe, images).to(state.device) for images in splits]
    if dataset is None:
        raise UserError(
            "name the data set to score on, such as --dataset cifar10 (with --root and, for files, --image-size)"
        )
    read = partial(load_images, dataset, root or Path("data"), download=True, image_size=given.image_size)
    with state.main_process_first():
        train, test = (read(split=split) for split in ("train", "test"))
    return [images.to(state.device) for images in (train, test.numbered_like(train))]


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
        model, report = load_foreign(Path(name), backbone=given.backbone, stem=given.stem, **prepared)
        if PartialState().is_main_process:
            print("\n".join(report.lines()), file=sys.stderr)
        return model
    return EmbeddingModel({"timm": timm_pretrained, "torchvision": torchvision_pretrained}[kind](name, **prepared))


def _own_cache(folder: Path | None) -> Path | None:
    """A run keeps its features with itself; an exported model, which may be anybody's, gets nothing written into it."""
    return folder / "features" if folder is not None and (folder / "run.json").is_file() else None


def _lines(subject: Subject, scores: Sequence[Score]) -> list[str]:
    """A line for the subject and one for each score, with what is a word or a number of its protocol."""
    lines = [f"{subject.name}  {_words(subject.protocol)}"]
    for score in scores:
        spread = "" if score.sd is None else f" ± {100 * score.sd:.2f} (sd, n = {score.n})"
        own = {key: value for key, value in score.protocol.items() if key not in subject.protocol}
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
