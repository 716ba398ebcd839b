"""What can be found wrong with a recipe without weights, training or a look at an image: names, files, numbers."""

import difflib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import timm

import ssl_transfer.models.small  # noqa: F401  (registers the small networks in timm)
from ssl_transfer import config
from ssl_transfer.building.data import ListedSplits, Part
from ssl_transfer.scores.base import ScoredImages
from ssl_transfer.teachers.section import Teacher, teacher_place

_PACKAGES = {"hf": ("datasets", "data.dataset hf", "pip install 'ssl-transfer[hf]'")}


def check(recipe: config.Recipe, splits: ListedSplits | None = None) -> tuple[list[str], list[str]]:
    """The problems of a recipe that its schema allows, and notes about what could not be looked at.

    Backbones that timm does not have, teachers that are not there, packages that are missing, more images held out or
    batched than there are, and scores that the labels do not allow; the same of a teacher that is a recipe. ``splits``
    are those that were listed before.
    """
    splits = splits or ListedSplits()
    problems = [*_of_names(recipe), *_of_packages(recipe)]
    own, notes = _of_data(recipe, splits)
    problems += own
    for number, teacher in enumerate(recipe.teachers):
        place = teacher_place(number, len(recipe.teachers))
        if teacher.recipe is not None:
            of_teacher, more = check(teacher.recipe, splits)
            problems += [f"{place}.recipe.{problem}" for problem in of_teacher]
            notes += [note for note in more if note not in notes]
        else:
            problems += [f"{place}.{problem}" for problem in _of_teacher(teacher)]
    return problems, notes


def _of_names(recipe: config.Recipe) -> Iterator[str]:
    name = recipe.model.backbone
    if not timm.is_model(name):
        yield f"model.backbone: timm has no {name}{_near(name, timm.list_models)}"
    elif recipe.model.pretrained and not timm.list_pretrained(f"{name.partition('.')[0]}*"):
        yield f"model.pretrained: timm has no weights of {name}: set pretrained: false, or choose another"


def _of_packages(recipe: config.Recipe) -> Iterator[str]:
    tracker = recipe.train.tracker
    if tracker is not None and find_spec(tracker) is None:
        yield f"train.tracker: {tracker} is not installed: pip install {tracker}"
    if recipe.data.dataset in _PACKAGES:
        package, key, install = _PACKAGES[recipe.data.dataset]
        if find_spec(package) is None:
            yield f"{key} needs {package}, which is not installed: {install}"


def _of_teacher(teacher: Teacher) -> Iterator[str]:
    if teacher.timm is not None and ":" not in teacher.timm and not timm.is_model(teacher.timm):
        yield f"timm: timm has no {teacher.timm}{_near(teacher.timm, timm.list_models)}"
    if teacher.torchvision is not None:
        import torchvision.models as published

        name = teacher.torchvision.partition(".")[0]
        if name not in published.list_models(module=published):
            yield f"torchvision: torchvision has no {name}{_near(name, published.list_models)}"
    for key in ("file", "checkpoint"):
        place = getattr(teacher, key)
        if place is not None and not Path(place).exists():
            yield f"{key}: there is no {place}"
    if teacher.file is not None and teacher.backbone is not None and not timm.is_model(teacher.backbone):
        yield f"backbone: timm has no {teacher.backbone}{_near(teacher.backbone, timm.list_models)}"


def _of_data(recipe: config.Recipe, splits: ListedSplits) -> tuple[list[str], list[str]]:
    """Where the images are there; recipes are checked on machines without them too."""
    parts: tuple[Part, ...] = ("training", "train", "test") if recipe.score else ("training",)
    problems: list[str] = []
    notes: list[str] = []
    found = {}
    for part in parts:
        try:
            found[part] = splits.listed(recipe.model_copy(update={"data": _not_downloaded(recipe)}), part)
        except (FileNotFoundError, PermissionError) as error:
            notes.append(f"not looked at, since its images are not here: data ({' '.join(str(error).split())})")
            return problems, notes
        except ValueError as error:
            problems.append(f"data: {error}")
            return problems, notes
    images = found["training"]
    if len(images) < recipe.data.batch_size:
        problems.append(
            f"data.batch_size: {recipe.data.batch_size} images make a batch, and {len(images)} are trained on: lower it"
        )
    if recipe.learns_labels and images.labels is None:
        problems.append(f"data: {images.name} {images.split} has no labels to learn")
    if len(found) == 3:
        classes = images.classes if recipe.classifies else None
        scored = ScoredImages(
            found["train"],
            found["test"],
            resident=recipe.data.resident,
            teacher=bool(recipe.teachers),
            classes=classes,
        )
        for place, kind in enumerate(recipe.score):
            try:
                kind.check(scored)
            except ValueError as error:
                problems.append(f"score.{place} ({kind.kind}): {error}")
    return problems, notes


def _not_downloaded(recipe: config.Recipe) -> config.Data:
    return recipe.data.model_copy(update={"download": False})


def _near(name: str, known: Callable[[], list[str]]) -> str:
    near = difflib.get_close_matches(name, known(), n=2)
    return f": did you mean {' or '.join(near)}?" if near else ""
