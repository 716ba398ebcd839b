"""``report.html`` of a run folder: what was run, what came out beside its teacher, and how each number was taken.

One page that needs nothing else, made of what lies in the folder, so it can be written again at any time.
"""

import logging
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer import config, runs
from ssl_transfer.catalog.roles import TRAINED, teacher_word
from ssl_transfer.errors import UserError
from ssl_transfer.files import write_text
from ssl_transfer.progress import duration
from ssl_transfer.report.details import MAPPED, SHOWN, THUMBNAIL, TIMED_BATCH, VOTES, Details, read_details
from ssl_transfer.report.rendering import data_url, protocols, rendered
from ssl_transfer.report.suite import suite_content
from ssl_transfer.runs.suite_file import FOLDER, read_suite
from ssl_transfer.scores.score import Score, ScoreTable
from ssl_transfer.training.metrics import NAME, read_metrics

log = logging.getLogger(__name__)

VIEWS = "views.png"  # of a run folder: images of the first batch and the views of them

_NOT_PLOTTED = ("step", "epoch", "images_per_second", "monitor_seconds", "monitor_share")
_COLORED = 20  # classes that colors can tell apart; a matrix of more could not be read either
_CONFUSED = 12  # pairs of classes that are listed where they are too many for a matrix


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
    details, suite = read_details(folder), read_suite(folder / FOLDER)
    return {
        "name": recipe.name,
        "summary": _summary(recipe),
        "verdict": _verdict(scored.table, details, info),
        "facts": _facts(recipe, info, scored, folder),
        "plots": _plots(folder / NAME, recipe, info),
        "views": _data_uri(folder / VIEWS),
        "recipe": config.dump(recipe),
        **_table(scored.table),
        "sizes": details.sizes,
        "timed_batch": TIMED_BATCH,
        "map": _map(details),
        "gallery": _gallery(details),
        "confusion": _confusion(details),
        "protocols": protocols(scored.table),
        "suite": None if suite is None else suite_content(suite),
    }


def _summary(recipe: config.Recipe) -> str:
    """What was trained, by which task, on which images."""
    titles = " and ".join(teacher.title for teacher in recipe.teachers)
    teachers = "" if not titles else f" from the teacher{'s' * (len(recipe.teachers) > 1)} {titles}"
    trained = f"{recipe.model.backbone} learned{teachers}" if titles else f"{recipe.model.backbone} was trained"
    return f"{trained} by the task {recipe.task.kind} on {recipe.data.title}, with seed {recipe.seed}."


def _teacher(teacher: config.Teacher) -> str:
    """Where a teacher comes from, what it was shown and what was transferred of it, for a person."""
    if teacher.recipe is not None:
        source = f"{teacher.title}, trained by the recipe {teacher.recipe.name}"
    elif teacher.zoo is not None:
        source = f"{teacher.title}, which comes with the package"
    elif teacher.checkpoint is not None:
        source = f"the model in {teacher.checkpoint}"
    elif teacher.file is not None:
        source = f"{teacher.backbone} with the weights in {teacher.file}"
    else:
        source = f"{teacher.title} with the weights published by {'timm' if teacher.timm else 'torchvision'}"
    size = "" if teacher.image_size is None else f", shown images of {teacher.image_size} px"
    weight = "" if teacher.weight is None else f", with weight {teacher.weight:g}"
    return f"{source}{size}; its {teacher.output} {'was' if teacher.output[-1] != 's' else 'were'} transferred{weight}"


def _facts(recipe: config.Recipe, info: runs.RunInfo, scored: runs.RunScores, folder: Path) -> dict[str, str]:
    optim, model = recipe.optim, folder / "model.safetensors"
    facts = {
        "training": f"{info.steps:,} of {info.total_steps:,} steps of {recipe.data.batch_size:,} images"
        + ("" if info.finished else "; not finished"),
        "time": f"{duration(info.seconds)} in training steps, {info.images_per_second:,.0f} images/s",
        "machine": f"{info.processes} x {info.device or 'unknown'}, {info.precision or 'unknown'}",
        **{teacher_word(place, len(recipe.teachers)): _teacher(own) for place, own in enumerate(recipe.teachers)},
        "data": f"{recipe.data.title}, {recipe.data.views} "
        f"{'view' if recipe.data.views == 1 else 'views'} of each image, augmented by the preset "
        f"{recipe.data.augment.preset}",
        "optimizer": f"{optim.name}, learning rate {optim.lr:g}, weight decay {optim.weight_decay:g}",
        "model": f"{model.stat().st_size / 2**20:.2f} MiB in model.safetensors"
        if model.is_file()
        else "not written yet",
        "scored": scored.about.get("date", "not yet"),
        "versions": ", ".join(f"{name} {number}" for name, number in (info.versions or {}).items()),
        "identity": info.identity,
    }
    return {what: value for what, value in facts.items() if value}


@dataclass(frozen=True)
class _Remark:
    """A sentence of the verdict; ``bad`` is what a person should look into."""

    text: str
    bad: bool = False


def _verdict(table: ScoreTable, details: Details, info: runs.RunInfo) -> list[_Remark]:
    """What a person would say of the table: how much was kept at what cost, and what is worse than it may be."""
    remarks = []
    if not info.finished:
        remarks.append(_Remark("This run is not finished: the figures below are of what it has come to.", bad=True))
    own = next((model for model in table.models if table.role(model) in TRAINED), None)
    if own is None:
        return remarks
    kept, teachers = table.kept, [model for model in table.models if table.role(model) == "teacher"]
    for teacher, shares in kept.items():
        least = min(shares, key=lambda metric: shares[metric])
        mean = sum(shares.values()) / len(shares)
        text = f"The student keeps {100 * mean:.0f} % of {'its teacher' if len(kept) == 1 else teacher}'s scores"
        text += f" on average, and least of {least}, {100 * shares[least]:.0f} %" if len(shares) > 1 else f" ({least})"
        if len(teachers) == 1 and {own, *teachers} <= details.sizes.keys():
            share = details.sizes[own].weights / details.sizes[teachers[0]].weights
            text += f", with {100 * share:.3g} % of its weights"
        remarks.append(_Remark(text + "."))
    before = _pairs(table, own, "untrained")
    if not kept and table.role(own) == "student" and before:
        agreed = [f"{mine.metric} {mine.percent} (before training {other.percent})" for mine, other in before]
        remarks.append(_Remark(f"How far the student agrees with its teacher, in %: {', '.join(agreed)}."))
    for role, words in (("untrained", "the same network before training"), ("raw pixels", "raw pixels")):
        pairs = _pairs(table, own, role)
        worse = [
            f"{score.metric} ({mine.percent} against {score.percent})"
            for mine, score in pairs
            if _is_worse(mine, score)
        ]
        if worse:
            bad = role == "untrained" or len(worse) == len(pairs)
            remarks.append(_Remark(f"It is worse than {words} in {', '.join(worse)}.", bad=bad))
    return remarks


def _pairs(table: ScoreTable, model: str, role: str) -> list[tuple[Score, Score]]:
    """The scores of ``model`` beside those of the model in ``role``, where both have one."""
    other = next((name for name in table.models if table.role(name) == role), None)
    both = [] if other is None else zip(table.row(model), table.row(other), strict=True)
    return [(mine, score) for mine, score in both if mine is not None and score is not None]


def _is_worse(mine: Score, other: Score) -> bool:
    smaller_is_better = mine.metric.startswith("ECE")
    return mine.value > other.value if smaller_is_better else mine.value < other.value


def _table(table: ScoreTable) -> dict[str, Any]:
    """The scores, a row a metric and a column a model, and the share of a teacher's score that the student kept."""
    kept = table.kept
    rows = {model: table.row(model) for model in table.models}
    return {
        "models": [
            {"who": model.partition(" (")[0], "what": model.partition(" (")[2].rstrip(")")}
            | {"own": table.role(model) in TRAINED}
            for model in table.models
        ],
        "rows": [
            {
                "metric": metric,
                "cells": [
                    None if (score := row[place]) is None else score.percent.partition(" ± ") for row in rows.values()
                ],
                "kept": [f"{100 * shares[metric]:.0f} %" if metric in shares else "" for shares in kept.values()],
            }
            for place, metric in enumerate(table.metrics)
        ],
        "kept": ["kept"] if len(kept) == 1 else [f"kept of {teacher}" for teacher in kept],
        "split": table.tested_on if table.scores else "",
        "repeated": table.repeated,
    }


def _plots(path: Path, recipe: config.Recipe, info: runs.RunInfo) -> list[Any]:
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
    watched = "training" if recipe.data.held_out is None else "held-out"
    words = {"lr": "learning rate", "knn": f"kNN among {watched} images [%]"}
    percent = {"knn"}
    for key in logged:
        if key.startswith("test_recall_"):
            words[key] = f"Recall@{key.removeprefix('test_recall_')} on the test split [%]"
            percent.add(key)
    return [
        Markup(
            curve(
                [x for x, _ in points],
                [100 * y if key in percent else y for _, y in points],
                x_label="epoch",
                y_label=words.get(key, key.replace("_", " ")),
                marks=len(points) < len(rows) / 2,  # taken now and then, and not in every step
                reference=("the teacher's own embedding", info.teacher_loss)
                if key == "loss" and info.teacher_loss is not None
                else None,
            )
        )
        for key, points in sorted(logged.items(), key=lambda item: (item[0] != "loss", item[0] != "lr"))
    ]


def _data_uri(path: Path) -> str | None:
    """A PNG as part of the page, None where there is none."""
    try:
        return data_url(path.read_bytes(), "png")
    except FileNotFoundError:
        return None


def _color(number: int, of: int) -> str:
    """Equally spaced hues, which can be told apart on white and on black."""
    return f"hsl({360 * number // max(of, 1)} 65% 50%)"


def _map(details: Details) -> dict[str, Any] | None:
    """The maps of the models side by side, with the same images in the same colors."""
    if not details.positions:
        return None
    classes = sorted({details.labels[row] for row in details.mapped if row in details.labels})
    colors = {number: _color(place, len(classes)) for place, number in enumerate(classes)}
    names = [details.class_name(details.labels[row]) if row in details.labels else "" for row in details.mapped]
    fills = [colors[details.labels[row]] if row in details.labels else "var(--ink)" for row in details.mapped]
    return {
        "models": {
            model: [
                (f"{300 * x:.1f}", f"{300 * y:.1f}", fill, name)
                for (x, y), fill, name in zip(places, fills, names, strict=True)
            ]
            for model, places in details.positions.items()
        },
        "legend": [(details.class_name(number), color) for number, color in colors.items()]
        if len(colors) <= _COLORED
        else [],
        "count": len(details.mapped),
        "largest": MAPPED,
    }


def _gallery(details: Details) -> dict[str, Any] | None:
    """Test images with their nearest others by each model, those first that the models disagree on."""
    if not details.queries:
        return None

    def shown(row: int, asked: int) -> dict[str, Any]:
        label, wanted = details.labels.get(row), details.labels.get(asked)
        return {
            "picture": details.thumbnails.get(row, ""),
            "name": f"#{row}" if label is None else f"#{row}: {details.class_name(label)}",
            "other": label != wanted,
        }

    return {
        "models": [model.partition(" (")[0] for model in details.queries[0].neighbors],
        "queries": [
            {
                "image": shown(query.row, query.row),
                "rows": [[shown(row, query.row) for row in near] for near in query.neighbors.values()],
                "shared": query.shared,
            }
            for query in details.queries
        ],
        "count": SHOWN,
        "sample": details.sample,
        "size": THUMBNAIL,
        "labeled": bool(details.labels),
    }


def _confusion(details: Details) -> dict[str, Any] | None:
    """Which classes each model takes for which, as a matrix if it can be read and as a list of pairs otherwise."""
    if not details.confusion:
        return None
    matrices = {}
    for model, counts in details.confusion.items():
        names = [details.class_name(number) for number in range(len(counts))]
        largest = max(max((n for j, n in enumerate(row) if j != i), default=0) for i, row in enumerate(counts)) or 1
        pairs = sorted(
            ((n, names[i], names[j]) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j),
            key=lambda pair: -pair[0],
        )
        matrices[model] = {
            "names": names,
            "rows": [
                (names[i], [(n, i == j, 0 if i == j else round(n / largest, 2)) for j, n in enumerate(row)])
                for i, row in enumerate(counts)
            ]
            if len(counts) <= _COLORED
            else [],
            "pairs": pairs[:_CONFUSED],
            "wrong": sum(n for n, _, _ in pairs),
        }
    counted = sum(map(sum, next(iter(details.confusion.values()))))
    return {"models": matrices, "probe": details.confused_by, "counted": counted, "votes": VOTES}
