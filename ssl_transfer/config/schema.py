"""A whole recipe, and which part of it decides the result."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from ssl_transfer.config.data import Data
from ssl_transfer.config.model import Model
from ssl_transfer.config.training import Optim, Train
from ssl_transfer.scores import Scores
from ssl_transfer.section import Section, rule, short
from ssl_transfer.tasks.sections import Task
from ssl_transfer.tasks.sections.pretraining import Pretraining
from ssl_transfer.teachers.section import Teacher, teacher_place

LONGEST_NAME = 200  # of the 255 bytes that a folder's name may have, with an identity and a suffix behind it


class Recipe(Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]  # of the run's folder
    seed: Annotated[int, Field(ge=0, lt=2**32)]  # of all that is drawn: first weights, orders, views, masks
    data: Data  # the images, and how a batch of views is drawn from them
    model: Model  # the network that is trained
    task: Task  # what is learned, and from which teacher
    optim: Optim  # the optimizer and its learning rate
    train: Train  # how long, how precisely, and what is kept
    score: Scores  # how the result is measured; an empty list: not at all

    @property
    def classifies(self) -> bool:
        """Whether the model ends in a classifier that learns labels."""
        return self.task.classifies

    @property
    def learns_labels(self) -> bool:
        """Whether the labels of the images that are trained on decide anything of the model."""
        return self.task.learns_labels

    @property
    def teachers(self) -> list[Teacher]:
        """The task's teachers, empty where there is nothing to learn from one."""
        return getattr(self.task, "teachers", [])

    @property
    def outputs(self) -> list[str]:
        """What the trained model gives, by name: its features, and what its head gives if it has one."""
        output = self.task.model_output(self.model.embedding_dim)
        return ["features"] if output is None else ["features", output]

    @rule
    def _the_warm_up_ends(self) -> Iterator[str]:
        if self.optim.warmup_epochs > self.train.epochs:
            yield f"optim.warmup_epochs is {self.optim.warmup_epochs:g} but train.epochs only {self.train.epochs}"

    @rule
    def _pretraining_has_two_views_and_a_projection(self) -> Iterator[str]:
        if isinstance(self.task, Pretraining) and self.data.views != 2:
            yield f"{self.task.kind} contrasts exactly two views, data.views is {self.data.views}"
        if isinstance(self.task, Pretraining) and self.model.embedding_dim is not None:
            yield f"{self.task.kind} ends in a projection: write task.projection_dim instead of model.embedding_dim"

    @rule
    def _a_classifier_has_no_embedding(self) -> Iterator[str]:
        if self.classifies and self.model.embedding_dim is not None:
            yield "a model that learns labels ends in a classifier: leave out model.embedding_dim"

    @rule
    def _the_batch_is_large_enough(self) -> Iterator[str]:
        rows, needed = self.data.batch_size * self.data.views, self.task.rows_needed
        if rows < needed:
            yield (
                f"{self.task.kind} needs {needed} views in a batch, data.batch_size {self.data.batch_size} and "
                f"data.views {self.data.views} make {rows}: raise one of them, or ask for fewer neighbors"
            )

    @rule
    def _maps_are_compared_of_whole_batches(self) -> Iterator[str]:
        if getattr(self.task, "compares_maps", False) and self.train.micro_batch_size is not None:
            yield f"{self.task.kind} is a mean over images: lower data.batch_size instead of micro_batch_size"

    @rule
    def _the_teacher_has_the_output(self) -> Iterator[str]:
        for number, teacher in enumerate(self.teachers):
            if teacher.recipe is not None and teacher.output not in teacher.recipe.outputs:
                place = teacher_place(number, len(self.teachers))
                yield (
                    f"{place}.output is {teacher.output}, but the model of its recipe {teacher.recipe.name} "
                    f"({teacher.recipe.task.kind}) gives {' and '.join(teacher.recipe.outputs)}: choose one of these"
                )

    @rule
    def _columns_differ(self) -> Iterator[str]:
        counts = Counter(column for kind in self.score for column in kind.columns())
        for column in (column for column, count in counts.items() if count > 1):
            yield f"score: two entries give the column {column!r}: change a setting of one that shows in its name"
        counts = Counter(kind.kind for kind in self.score if kind.alone)
        for name in (name for name, count in counts.items() if count > 1):
            yield f"score: two entries are of the kind {name}: keep one of them"

    @rule
    def _a_classifier_is_scored_where_there_is_one(self) -> Iterator[str]:
        for kind in self.score:
            if kind.needs_classifier and not self.classifies:
                yield f"score {kind.kind} needs a classifier: write task.kind=classify or task.labels=true"

    @rule
    def _folds_are_those_of_stl10(self) -> Iterator[str]:
        data = self.data
        predefined = data.dataset == "stl10" and data.train in (None, "train") and data.sees_all("train")
        if any(kind.needs_folds for kind in self.score) and not predefined:
            yield (
                f"folds are predefined in stl10's split train alone, the whole of it; data.dataset is {data.dataset}, "
                f"train {data.train or 'train'}, images {data.images or 'all'}, held_out {data.held_out or 'none'}: "
                "leave out folds of score linear_probe"
            )

    @rule
    def _learned_labels_are_not_monitored(self) -> Iterator[str]:
        for kind in self.score:
            if kind.kind == "monitor" and self.learns_labels and self.data.held_out is None:
                yield (
                    "score monitor would classify images whose labels the model learns: hold some out of training with "
                    "data.held_out"
                )

    @rule
    def _scored_images_are_others_of_the_same_classes(self) -> Iterator[str]:
        data, test = self.data, self.data.splits["test"]
        for kind in self.score:
            if kind.learned_from is None:
                continue
            learned_from = data.splits[kind.learned_from]
            if not data.share_classes(learned_from, test):
                yield (
                    f"score {kind.kind} needs test images of the classes that were learned, and the splits "
                    f"{learned_from} and {test} of {data.dataset} share none: score retrieval and clustering instead"
                )
            elif kind.learned_from == "train" and learned_from == test and not data.tests_held_out:
                yield (
                    f"score {kind.kind} would learn from the images that it is scored on, the split {test}: name "
                    "another in data.test or data.train"
                )


# A teacher may be a recipe of its own: known only now that Recipe is.
Teacher.model_rebuild(_types_namespace={"Recipe": Recipe})
Recipe.model_rebuild()

# Where things lie and how they are shown decides nothing about the result, so it is no part of a run's identity.
_NOT_IDENTITY = {
    "name": True,
    "score": True,
    "data": {"root", "download", "test", "on_error", "unchecked", "resident", "workers"},
    "train": {"runs", "log_every", "checkpoint_every", "checkpoint_minutes", "tracker", "cpu_threads"},
}


def identity(recipe: Recipe) -> dict[str, Any]:
    """Everything of a recipe that decides the trained weights, its teachers' recipes included."""
    # Without nulls, so that an option added to the schema later, off by default, leaves earlier runs what they are.
    content = recipe.model_dump(mode="json", exclude=_NOT_IDENTITY, exclude_none=True)  # type: ignore[arg-type]
    for number, teacher in enumerate(recipe.teachers):
        if teacher.recipe is not None:
            named = content["task"]["teacher"]
            (named if len(recipe.teachers) == 1 else named[number])["recipe"] = identity(teacher.recipe)
    return content


def identity_hash(recipe: Recipe) -> str:
    """A short name of :func:`identity`, the same on every machine."""
    return hashlib.sha256(json.dumps(identity(recipe), sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The dotted keys at which two dumped recipes differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    return [] if old == new else [f"{path} was {short(old)}, is {short(new)}"]
