"""What the programs in ``eval/`` do: get the features that they are pointed at, measure, print and write."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ssl_transfer import config, runs
from ssl_transfer.building.data import read_images, scored_part, scored_splits
from ssl_transfer.context import device_name, join_processes, on_main_process, versions
from ssl_transfer.data import Images, load_images
from ssl_transfer.distributed import main_process_first
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.features.extraction import exact
from ssl_transfer.features.model_features import ModelFeatures, features_of
from ssl_transfer.files import write_json
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.probes import load_feature_file
from ssl_transfer.scores.base import Measuring, ScoreSection
from ssl_transfer.scores.score import Score
from ssl_transfer.teachers.loading import open_model
from ssl_transfer.teachers.section import NAMED_SOURCES
from ssl_transfer.watch import stop_watching


def measure(program: str, asked: ScoreSection, source: str, given: argparse.Namespace) -> None:
    """Score the features of ``source`` by what was ``asked``; print the scores, and write them with ``--json``.

    Raises:
        UserError: the features cannot be had, or do not allow the score.
    """
    join_processes()
    with user_mistakes():
        main = PartialState().is_main_process
        features = load_features(source, given, train_features=asked.reads_training_features)
        teachers = [load_features(given.teacher, given, train_features=False)] if asked.needs_teacher else []
        with exact():
            measured = main or asked.needs_all_processes
            scores = asked.measure(features, Measuring(given.seed, teachers)) if measured else []
        if main:
            print("\n".join(_lines(features, scores)))
            if given.json is not None:
                write_json(given.json, _report(program, scores))
    stop_watching()  # the main process may measure for long yet, and the others are done
    PartialState().destroy_process_group()


def load_features(source: str, given: argparse.Namespace, *, train_features: bool = True) -> ModelFeatures:
    """The features of ``source``: a run or exported folder, an npz file of features, or ``KIND:NAME``.

    The kinds are ``zoo``, models that come with the package, ``timm`` and ``torchvision``, pretrained networks, and
    ``file``, a checkpoint of another tool.

    Raises:
        UserError: a precision is asked for, and ``source`` is a file of features.
    """
    if source.endswith(".npz"):
        if given.precision != "float32":
            raise UserError(f"--precision is for networks, and {source} holds features as they are: leave it out")
        features = load_feature_file(source)
        sizes = {"n_train": len(features.train_x), "n_test": len(features.test_x)}
        return ModelFeatures(source, features, {"layer": "as saved", "width": features.train_x.shape[1], **sizes})
    kind, _, name = source.partition(":")
    folder = None if kind in NAMED_SOURCES else Path(source)
    splits = _splits(on_main_process(lambda: _recipe_of(folder, given)), given)
    # The main process's disk has the run, and it downloads published weights.
    model = on_main_process(lambda: load_model(folder)[0] if folder is not None else _published(kind, name, given))
    cache = on_main_process(lambda: given.cache or _own_cache(folder))
    return features_of(
        source,
        model.eval(),
        splits,
        layer=given.layer,
        train_features=train_features,
        precision=given.precision,
        cache=cache,
    )


def _recipe_of(folder: Path | None, given: argparse.Namespace) -> config.Recipe | None:
    """The recipe of the run in ``folder``, if it is one.

    Raises:
        UserError: there is neither a recipe nor an argument that says on which images to score.
    """
    if folder is not None and (folder / "recipe.yaml").is_file():
        return runs.read_recipe(folder)
    if given.dataset is None and folder is not None and not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name a run or an exported folder, or give --timm NAME")
    if given.dataset is None:
        raise UserError(
            "name the data set to score on, such as --dataset cifar10 (with --root and, for files, --image-size)"
        )
    return None


def _splits(recipe: config.Recipe | None, given: argparse.Namespace) -> list[Images]:
    """Both splits of the data set that is named, or those that a run with this recipe was scored on."""
    state = PartialState(cpu=not torch.cuda.is_available())
    dataset, root = given.dataset, given.root
    if recipe is not None:
        data = recipe.data
        root = root or data.root
        if dataset in (None, data.dataset):
            placed = {"root": str(root), "image_size": given.image_size or data.image_size}
            recipe = recipe.model_copy(update={"data": data.model_copy(update=placed)})
            with main_process_first():
                splits = scored_splits(recipe, read_images)
            return [scored_part(recipe, images).to(state.device) for images in splits]
    read = partial(load_images, dataset, root or Path("data"), download=True, image_size=given.image_size)
    with main_process_first():
        train, test = (read(split=split) for split in ("train", "test"))
    return [images.to(state.device) for images in (train, test.numbered_like(train.class_names))]


def _published(kind: str, name: str, given: argparse.Namespace) -> EmbeddingModel:
    """A network of a library or another tool, with the preprocessing it was published with."""
    prepared: dict[str, Any] = {
        "mean": given.mean,
        "std": given.std,
        "image_size": given.input_size,
    }
    if kind == "file":
        if given.backbone is None:
            raise UserError("--file needs --backbone, timm's name of the network in it, for example resnet50")
        named = {"format": given.format, "prefix": given.prefix, "stem": given.stem}
        prepared |= {"backbone": given.backbone, **named}
    model, report = open_model(f"{kind}:{name}", **prepared)
    if report and PartialState().is_main_process:
        print("\n".join(report), file=sys.stderr)
    return model


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
