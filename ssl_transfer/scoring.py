"""The scores that a recipe asks for, of several models on the same images, in a file and in a table."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ssl_transfer import config, measures
from ssl_transfer.files import write_json
from ssl_transfer.measures import Score as Score
from ssl_transfer.measures import Subject

# Columns stand side by side as far as they fit into a terminal of 80 characters.
WIDTH = 78

DURING_TRAINING = (config.Monitor, config.BestOnTest)  # measured then, not by the features of the end


def layers(kinds: Sequence[config.Score]) -> list[str]:
    """The layers whose features these kinds of scores look at."""
    return list(dict.fromkeys(_layer(kind) for kind in kinds if not isinstance(kind, DURING_TRAINING)))


def score_subject(
    subjects: Mapping[str, Subject],
    kinds: Sequence[config.Score],
    *,
    seed: int,
    teacher: Mapping[str, Subject] | None,
    main: bool,
) -> list[Score]:
    """Every score of ``kinds`` of one model, given as the subject of each layer, on the ``main`` process.

    What shows the network augmented images is computed by all processes; the others leave the rest to the main one.
    """
    scores: list[Score] = []
    for kind in kinds:
        if isinstance(kind, DURING_TRAINING):
            continue
        subject, together = subjects[_layer(kind)], isinstance(kind, config.Finetune) or _is_augmented(kind)
        if not (main or together):
            continue
        found = _score(kind, subject, seed, None if teacher is None else teacher[_layer(kind)])
        scores += found if main else []
    return scores


def _score(kind: config.Score, subject: Subject, seed: int, teacher: Subject | None) -> list[Score]:
    settings = kind.model_dump(exclude={"kind", "layer"})
    if isinstance(kind, config.KNN):
        return measures.knn(subject, **settings | {"temperature": [kind.temperature]})
    if isinstance(kind, config.Retrieval):
        return measures.retrieval(subject, **settings)
    if isinstance(kind, config.Agreement):
        return [] if teacher is None else measures.agreement(subject, teacher, **settings, seed=seed)
    if isinstance(kind, config.Classification):
        return measures.classification(subject, **settings)
    seeded: dict[type, Callable[..., list[Score]]] = {
        config.LinearProbe: measures.linear_probe,
        config.FewShot: measures.few_shot,
        config.Finetune: measures.finetune,
        config.Clustering: measures.clustering,
    }
    return seeded[type(kind)](subject, **settings, seed=seed)


def _layer(kind: config.Score) -> str:
    return "output" if isinstance(kind, config.Classification) else getattr(kind, "layer", "features")


def _is_augmented(kind: config.Score) -> bool:
    return isinstance(kind, config.LinearProbe) and kind.protocol == "augmented"


def write_scores(path: Path, scores: Sequence[Score], context: Mapping[str, Any]) -> None:
    """Write ``scores.json``: what is common to all scores, then each with its protocol."""
    write_json(path, {**context, "retention": _kept(scores), "scores": [asdict(score) for score in scores]})


def read_scores(path: Path, asked: object) -> list[Score] | None:
    """The scores in ``path`` if they are those ``asked`` for, else None."""
    try:
        content = json.loads(path.read_text())
        return [Score(**score) for score in content["scores"]] if content["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def print_scores(scores: Sequence[Score], title: str, console: Console) -> None:
    """The table a person reads: a row a model, a column a metric, in percent; as many tables as it takes columns."""
    console.print(f"{title}: {_caption(scores)}", highlight=False, soft_wrap=True)
    cells = pd.DataFrame(
        {"model": score.model, "metric": score.metric, "text": _percent(score)} for score in scores
    ).pivot(index="model", columns="metric", values="text")
    cells = cells.loc[list(dict.fromkeys(score.model for score in scores))].fillna("")
    kept = _kept(scores)
    for metrics in _rows_of_columns(list(dict.fromkeys(score.metric for score in scores)), cells):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        table.add_column("model", no_wrap=True)
        for metric in metrics:
            table.add_column(metric, justify="right", no_wrap=True)
        for model in cells.index:
            table.add_row(model, *(str(cells.loc[model, metric]) for metric in metrics))
        if any(metric in kept for metric in metrics):
            table.add_section()
            shares = (f"{100 * kept[metric]:.0f} %" if metric in kept else "" for metric in metrics)
            table.add_row("student / teacher", *shares)
        console.print(table)


def _rows_of_columns(metrics: Sequence[str], cells: pd.DataFrame) -> list[list[str]]:
    """The columns, broken into tables that fit the width."""
    first = max(len(model) for model in [*cells.index, "student / teacher"])
    rows: list[list[str]] = []
    left = 0
    for metric in metrics:
        width = 2 + max(len("100 %"), len(metric), *(len(text) for text in cells[metric]))
        if not rows or width > left:
            rows, left = [*rows, []], WIDTH - first
        rows[-1].append(metric)
        left -= width
    return rows


def _kept(scores: Sequence[Score]) -> dict[str, float]:
    """How much of its teacher's score the student has, by column; empty where there is no teacher."""
    names = {role: score.model for score in scores for role in ("student", "teacher") if score.model.startswith(role)}
    return measures.retention(scores, **names) if len(names) == 2 else {}


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f}" + (f" ± {100 * score.sd:.1f}" if score.sd is not None else "")


def _caption(scores: Sequence[Score]) -> str:
    first = scores[0].protocol
    draws = next((f"; ± sd over {score.n} draws of labels" for score in scores if score.n is not None), "")
    return f"in % on {first['n_test']:,} test images, {first['n_train']:,} training images{draws}"
