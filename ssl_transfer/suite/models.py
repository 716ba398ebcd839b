"""The models of a suite: those that are named, their teacher, and the networks that they started from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from ssl_transfer import config, runs
from ssl_transfer.building.model import untrained
from ssl_transfer.catalog.roles import Role, teacher_word
from ssl_transfer.features.extraction import features_key
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import build_model, load_model
from ssl_transfer.suite.asked import model_section
from ssl_transfer.teachers.loading import open_teacher
from ssl_transfer.teachers.section import Teacher


@dataclass(frozen=True)
class Subject:
    """A model with its column; without a model, the pixels themselves."""

    role: Role
    name: str
    model: EmbeddingModel | None

    @cached_property
    def key(self) -> dict[str, str]:
        """What decides its features."""
        return {"network": "pixels"} if self.model is None else features_key(self.model, "features")


def open_subjects(words: Sequence[str], teacher: str | None, *, baselines: bool) -> list[Subject]:
    """The teachers, the models and, with ``baselines``, their networks untrained and the pixels; each once.

    ``teacher`` left out stands for those of the first run that has some. Words are those of
    :func:`ssl_transfer.suite.asked.model_section`.

    Raises:
        ValueError, FileNotFoundError: there is no such model, or it is damaged.
        UserError: a run is not readable.
    """
    sections = [model_section(word) for word in words]
    recipes = [_recipe(section) for section in sections]
    subjects: list[Subject] = []
    if teacher is not None:
        section = model_section(teacher)
        subjects.append(Subject("teacher", f"teacher ({_title(section)})", open_teacher(section, None)[0]))
    else:
        teachers = next((recipe.teachers for recipe in recipes if recipe is not None and recipe.teachers), [])
        for place, taught_by in enumerate(teachers):
            folder = None if taught_by.recipe is None else runs.folder_of(taught_by.recipe)[0]
            name = f"{teacher_word(place, len(teachers))} ({taught_by.title})"
            subjects.append(Subject("teacher", name, open_teacher(taught_by, folder)[0]))
    starts: list[Subject] = []
    for section, recipe in zip(sections, recipes, strict=True):
        role: Role = "student" if subjects and subjects[0].role == "teacher" else "trained" if recipe else "other"
        name = _title(section) if role == "other" else f"{role} ({_title(section)})"
        subjects.append(Subject(role, name, open_teacher(section, None)[0]))
        if baselines and section.folder is not None:
            starts.append(_untrained(section.folder, recipe))
    if baselines:
        starts.append(Subject("raw pixels", "raw pixels", None))
    return _each_once([*subjects, *starts])


def _recipe(section: Teacher) -> config.Recipe | None:
    """The recipe of a run or of an exported one, which its folder holds."""
    folder = section.folder
    return runs.read_recipe(folder) if folder is not None and (folder / "recipe.yaml").is_file() else None


def _title(section: Teacher) -> str:
    return section.title if section.folder is None else section.folder.resolve().name


def _untrained(folder: Path, recipe: config.Recipe | None) -> Subject:
    """The network of a run as it was before its training; of another folder's the same network, seed 0."""
    spec = load_model(folder)[1]
    if recipe is not None:
        model = untrained(recipe, spec)
    else:
        torch.manual_seed(0)
        model = build_model(spec)
    return Subject("untrained", f"untrained ({spec.backbone})", model.eval())


def _each_once(subjects: Sequence[Subject]) -> list[Subject]:
    """The subjects with different features, under names of their own."""
    found: dict[str, Subject] = {}
    names: list[str] = []
    for subject in subjects:
        key = f"{subject.role} {subject.key}"
        if key in found:
            continue
        names.append(subject.name)
        same = names.count(subject.name)
        name = subject.name if same == 1 else f"{subject.name} {same}"
        found[key] = Subject(subject.role, name, subject.model)
    return list(found.values())
