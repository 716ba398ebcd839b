"""``report.html`` of a run folder: what was run, what came out beside its teacher, and how each number was taken.

One page that needs nothing else, made of what lies in the folder, so it can be written again at any time.
"""

import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from ssl_transfer import config, runs
from ssl_transfer.catalog.roles import TRAINED
from ssl_transfer.errors import UserError
from ssl_transfer.files import write_text
from ssl_transfer.progress import duration
from ssl_transfer.report.rendering import protocols, rendered
from ssl_transfer.report.suite import suite_content
from ssl_transfer.runs.suite_file import FOLDER, read_suite
from ssl_transfer.scores.score import ScoreTable
from ssl_transfer.training.metrics import NAME, read_metrics

log = logging.getLogger(__name__)

_NOT_PLOTTED = ("step", "epoch", "images_per_second", "monitor_seconds", "monitor_share")


def write_report(folder: Path, scored: runs.RunScores | None = None) -> Path:
    """Write ``report.html`` into a run folder, with whatever the run has come to, and return its path.

    ``scored`` stands for the scores in the folder, if they are about to be written.

    Raises:
        UserError: ``folder`` is no run folder.
    """
    path = folder / "report.html"
    write_text(path, rendered("page.html.j2", _content(folder, scored)))
    return path


def _content(folder: Path, scored: runs.RunScores | None) -> dict[str, Any]:
    recipe, info = runs.read_recipe(folder), runs.read_info(folder)
    if info is None:
        raise UserError(f"{folder} is no run folder: it has no run.json")
    scored = scored or runs.read_scores(folder) or runs.RunScores([], {})
    suite = read_suite(folder / FOLDER)
    return {
        "name": recipe.name,
        "summary": _summary(recipe),
        "facts": _facts(recipe, info, scored, folder),
        "plots": _plots(folder / NAME),
        "recipe": config.dump(recipe),
        **_table(scored.table),
        "protocols": protocols(scored.table),
        "suite": None if suite is None else suite_content(suite),
    }


def _summary(recipe: config.Recipe) -> str:
    teacher = recipe.teacher
    made_by = teacher.recipe if teacher is not None else None
    taught = ""
    if teacher is not None:
        taught = f" from {made_by.model.backbone} (recipe {made_by.name})" if made_by else f" from {_source(teacher)}"
    return f"{recipe.task.kind}{taught} into {recipe.model.backbone} on {recipe.data.dataset}, seed {recipe.seed}"


def _source(teacher: config.Teacher) -> str:
    """Where a teacher that no recipe makes comes from, in the recipe's own words."""
    given = teacher.model_dump(mode="json", exclude_defaults=True, exclude={"output"})
    return ", ".join(f"{key} {value}" for key, value in given.items())


def _facts(recipe: config.Recipe, info: runs.RunInfo, scored: runs.RunScores, folder: Path) -> dict[str, str]:
    optim, model = recipe.optim, folder / "model.safetensors"
    facts = {
        "training": f"{info.steps:,} of {info.total_steps:,} steps of {recipe.data.batch_size:,} images"
        + ("" if info.finished else "; not finished"),
        "time": f"{duration(info.seconds)} in training steps, {info.images_per_second:,.0f} images/s",
        "machine": f"{info.processes} x {info.device or 'unknown'}, {info.precision or 'unknown'}",
        "data": f"{recipe.data.dataset}, {recipe.data.views} views, augmentation {recipe.data.augment.preset}",
        "optimizer": f"{optim.name}, learning rate {optim.lr:g}, weight decay {optim.weight_decay:g}",
        "model": f"{model.stat().st_size / 2**20:.2f} MiB in model.safetensors"
        if model.is_file()
        else "not written yet",
        "scored": scored.about.get("date", "not yet"),
        "versions": ", ".join(f"{name} {number}" for name, number in (info.versions or {}).items()),
        "identity": info.identity,
    }
    return {what: value for what, value in facts.items() if value}


def _table(table: ScoreTable) -> dict[str, Any]:
    """The scores, a row a model and a column a metric, and the share of its teacher's score that the student kept."""
    kept = table.kept
    return {
        "metrics": table.metrics,
        "models": [
            {
                "name": model,
                "own": table.role(model) in TRAINED,
                "cells": ["" if score is None else score.percent for score in table.row(model)],
            }
            for model in table.models
        ],
        "kept": [f"{100 * kept[metric]:.0f} %" if metric in kept else "" for metric in table.metrics] if kept else [],
        "split": table.tested_on if table.scores else "",
        "repeated": table.repeated,
    }


def _plots(path: Path) -> list[Any]:
    """A curve of everything that was logged over the epochs: the loss, the learning rate, figures taken meanwhile."""
    from markupsafe import Markup

    from ssl_transfer.report.plots import curve  # loads matplotlib

    logged: dict[str, list[tuple[float, float]]] = defaultdict(list)
    rows, damaged = read_metrics(path)
    if damaged:
        log.warning("%s has %s damaged lines, which the report leaves out", path, damaged)
    for row in rows.values():
        for key, value in row.items():
            if key not in _NOT_PLOTTED and isinstance(value, int | float) and math.isfinite(value):
                logged[key].append((row["epoch"], value))
    words = {"lr": "learning rate", "knn": "kNN among training images"}
    return [
        Markup(
            curve(
                [x for x, _ in points],
                [y for _, y in points],
                x_label="epoch",
                y_label=words.get(key, key.replace("_", " ")),
                marks=len(points) < len(rows) / 2,  # taken now and then, and not in every step
            )
        )
        for key, points in sorted(logged.items(), key=lambda item: (item[0] != "loss", item[0] != "lr"))
    ]
