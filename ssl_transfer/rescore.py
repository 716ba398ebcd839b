"""The scores of a trained recipe: of its teachers, the model itself, the untrained network and raw pixels."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from torch import Tensor

from ssl_transfer import config, runs
from ssl_transfer.building.data import OpenSplits, scored_splits
from ssl_transfer.building.model import untrained_everywhere
from ssl_transfer.building.teacher import load_teacher
from ssl_transfer.catalog.roles import TRAINED, Role, teacher_word
from ssl_transfer.context import Context, device_name, versions
from ssl_transfer.data import Images
from ssl_transfer.distributed import meet
from ssl_transfer.errors import machine_limits, user_mistakes
from ssl_transfer.features.model_features import ModelFeatures, features_of, shows_pixels
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec, load_model
from ssl_transfer.progress import Rounds
from ssl_transfer.report.details import write_details
from ssl_transfer.report.page import write_report
from ssl_transfer.report.terminal import print_scores
from ssl_transfer.scores import Scores
from ssl_transfer.scores.base import ScoredImages
from ssl_transfer.scores.measuring import measure_all, needed_layers
from ssl_transfer.scores.score import Score, ScoreTable

_ASKED = TypeAdapter(Scores)


def check_scores(recipe: config.Recipe, splits: OpenSplits) -> None:
    """Refuse before anything is trained what scoring would refuse after it.

    Raises:
        UserError: a score that the recipe asks for cannot be had from its images, in the words of its probe.
    """
    info = runs.read_info(runs.folder_of(recipe)[0])
    if not runs.final_scores(recipe) or (info is not None and info.finished):
        return
    with user_mistakes():
        train, test = scored_splits(recipe, splits.listed)
        classes = splits.listed(recipe, "training").classes if recipe.classifies else None
        taught = bool(recipe.teachers)
        images = ScoredImages(train, test, resident=recipe.data.resident, teacher=taught, classes=classes)
        for kind in recipe.score:
            kind.check(images)


def score_once(recipe: config.Recipe, folder: Path, context: Context, splits: OpenSplits) -> None:
    """Score the run unless its folder holds the same scores already; then print those."""
    known = context.on_main_process(lambda: runs.read_scores(folder) if runs.has_scores(recipe, folder) else None)
    if known is None:
        rescore(recipe, folder, context, splits)
    elif context.console is not None:
        print_scores(known.table, _title(recipe), context.console)


@machine_limits()
def rescore(
    recipe: config.Recipe,
    folder: Path,
    context: Context | None = None,
    splits: OpenSplits | None = None,
    *,
    keep: bool = False,
) -> None:
    """Score teachers, student, untrained student and raw pixels by the recipe's probes; write and print the scores.

    With ``keep`` columns that the run has and the recipe does not ask for stay, if they are of the same images.

    Raises:
        UserError: the model, a teacher or the images cannot be had, or do not allow a score.
    """
    context = context or Context.start(recipe)
    splits = splits or OpenSplits(context)
    main = context.accelerator.is_main_process
    with user_mistakes():
        student, spec = context.on_main_process(lambda: load_model(folder))
        train, test = scored_splits(recipe, splits.scored, splits.class_names)
        scores: list[Score] = []
        teachers: list[dict[str, ModelFeatures]] = []
        shown: dict[str, ModelFeatures] = {}  # in the report, beside the scores
        predicted: dict[str, dict[str, Tensor]] = {}  # by model and column
        needed = needed_layers(recipe.score)
        seen = sum(len(train) * train_features + len(test) for train_features in needed.values())
        rounds = Rounds("scoring", context.console, _count_models(recipe, train))
        for role, name, model in _models(recipe, student, spec, train, context):
            rounds.begin(name)
            with rounds.stage("features", seen, "images") as stage:
                layers = {
                    layer: features_of(
                        name,
                        model,
                        (train, test),
                        role=role,
                        layer=layer,
                        train_features=train_features,
                        cache=folder / "features",
                        must_keep=True,  # a run has the same files, whatever happened to it
                        advance=stage.advance,
                    )
                    for layer, train_features in needed.items()
                }
            scores += measure_all(
                layers,
                recipe.score,
                seed=recipe.seed,
                teachers=() if role == "teacher" else teachers,
                main=main,
                classes=student.embedding_dim,
                predicted=predicted.setdefault(name, {}),
                watched=rounds.stage,
            )
            rounds.end()
            if role == "teacher":
                teachers.append(layers)
            if layers and role in ("teacher", *TRAINED):
                shown[name] = layers.get("features") or next(iter(layers.values()))
            if main and role in TRAINED:
                scores += [score for kind in recipe.score for score in kind.from_log(folder, name, role)]
    if context.console is not None:
        about = {
            **runs.score_settings(recipe),
            "dataset": recipe.data.dataset,
            "images": {images.split: images.inventory.summary() for images in (train, test) if images.inventory},
            "fingerprints": {images.split: images.fingerprint for images in (train, test)},
            "identity": config.identity_hash(recipe),
            "seed": recipe.seed,
            "device": device_name(context.device),
            "versions": versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if shown:
            with user_mistakes():
                write_details(folder, shown, predicted, seed=recipe.seed)
        if keep:
            before = runs.read_scores(folder)
            dropped = _of_other_images(scores, about, before)
            if dropped:
                context.say(f"these scores of other images are no longer in scores.json: {', '.join(dropped)}")
            scores, about = _with_others(scores, about, before)
        # The scores last: where they are, the run is complete, and nobody would write the report again.
        write_report(folder, runs.as_read(scores, about))
        runs.write_scores(folder, scores, about)
        print_scores(ScoreTable(scores), _title(recipe), context.console)
    meet()


class _Scored(NamedTuple):
    role: Role
    name: str  # in the table
    model: EmbeddingModel | None  # None: the pixels themselves


def _models(
    recipe: config.Recipe, student: EmbeddingModel, spec: ModelSpec, images: Images, context: Context
) -> Iterator[_Scored]:
    """Whose features are scored."""
    for place, teacher in enumerate(recipe.teachers):
        name = f"{teacher_word(place, len(recipe.teachers))} ({teacher.title})"
        yield _Scored("teacher", name, load_teacher(teacher, context, report=False))
    role: Role = "student" if recipe.teachers else "trained"
    yield _Scored(role, f"{role} ({spec.backbone})", student)
    yield _Scored("untrained", f"untrained ({spec.backbone})", untrained_everywhere(recipe, spec, context))
    if shows_pixels(images):
        yield _Scored("raw pixels", "raw pixels", None)


def _with_others(
    scores: list[Score], about: dict[str, Any], before: runs.RunScores | None
) -> tuple[list[Score], dict[str, Any]]:
    """The scores with those columns of ``before`` that are not among them, and what was asked for with those, too."""
    if before is None or not _same_images(about, before):
        return scores, about
    taken = {score.metric for score in scores}
    others = [score for score in before.scores if score.metric not in taken]
    kinds = [(kind, set(kind.columns())) for kind in _ASKED.validate_json(json.dumps(before.about.get("asked", [])))]
    asked = [kind.model_dump(mode="json") for kind, columns in kinds if not columns & taken]
    return [*others, *scores], {**about, "asked": [*asked, *about["asked"]]}


def _of_other_images(scores: list[Score], about: dict[str, Any], before: runs.RunScores | None) -> list[str]:
    """The columns of ``before`` that cannot be beside those of ``scores``, since their images are others."""
    if before is None or _same_images(about, before):
        return []
    taken = {score.metric for score in scores}
    return [metric for metric in dict.fromkeys(score.metric for score in before.scores) if metric not in taken]


def _same_images(about: dict[str, Any], before: runs.RunScores) -> bool:
    return bool(before.about.get("fingerprints") == about["fingerprints"])


def _count_models(recipe: config.Recipe, images: Images) -> int:
    """How many :func:`_models` gives."""
    return 2 + len(recipe.teachers) + shows_pixels(images)


def _title(recipe: config.Recipe) -> str:
    return f"{recipe.name} (seed {recipe.seed})"
