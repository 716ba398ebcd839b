"""Scores of several models on the same images by the same probes, each with the protocol it was taken by."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ssl_transfer.config import KNN, FewShot, LinearProbe
from ssl_transfer.files import write_json
from ssl_transfer.probes import few_shot, knn_accuracy, linear_probe


@dataclass(frozen=True)
class Score:
    """One number: whose, which, and how it was taken. Accuracies are fractions of the test split."""

    model: str
    metric: str
    value: float
    protocol: dict[str, Any]
    sd: float | None = None  # over draws, where there are several
    n: int | None = None


def score_features(
    model: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    kinds: Sequence[KNN | LinearProbe | FewShot],
    *,
    seed: int,
    protocol: Mapping[str, Any],
) -> Iterator[Score]:
    """Run every probe of ``kinds`` on (features, labels) of both splits."""
    for kind in kinds:
        shared = {**protocol, "n_train": len(train[0]), "n_test": len(test[0])}
        if isinstance(kind, KNN):
            accuracies = knn_accuracy(*train, *test, k=kind.k, temperature=kind.temperature)
            for (k, temperature), accuracy in accuracies.items():
                settings = {"probe": "knn", "k": k, "temperature": temperature, "similarity": "cosine"}
                yield Score(model, f"kNN {k}", accuracy, shared | settings)
        elif isinstance(kind, LinearProbe):
            fitted = linear_probe(*train, *test, seed=seed)
            settings = {
                "probe": "linear",
                **{key: value for key, value in asdict(fitted).items() if key != "accuracy"},
            }
            yield Score(model, "linear", fitted.accuracy, shared | settings)
        else:
            drawn = few_shot(*train, *test, labels_per_class=kind.labels_per_class, draws=kind.draws, seed=seed)
            for amount, result in drawn.items():
                settings = {"probe": "few_shot", "labels_per_class": amount, "labels": result.labels}
                yield Score(model, f"{amount}/class", result.mean, shared | settings, sd=result.sd, n=result.draws)


def write_scores(path: Path, scores: Sequence[Score], context: Mapping[str, Any]) -> None:
    """Write ``scores.json``: what is common to all scores, then each with its protocol."""
    write_json(path, {**context, "scores": [asdict(score) for score in scores]})


def read_scores(path: Path, asked: object) -> list[Score] | None:
    """The scores in ``path`` if they are those ``asked`` for, else None."""
    try:
        content = json.loads(path.read_text())
        return [Score(**score) for score in content["scores"]] if content["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def print_scores(scores: Sequence[Score], title: str, console: Console) -> None:
    """The table a person reads: a row a model, a column a metric, accuracies in percent of the test split."""
    cells = pd.DataFrame(
        {"model": score.model, "metric": score.metric, "text": _percent(score)} for score in scores
    ).pivot(index="model", columns="metric", values="text")
    order = (
        list(dict.fromkeys(score.model for score in scores)),
        list(dict.fromkeys(score.metric for score in scores)),
    )
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)  # fits 80 columns
    table.add_column("model", no_wrap=True)
    for metric in order[1]:
        table.add_column(metric, justify="right", no_wrap=True)
    for model in order[0]:
        table.add_row(model, *(str(cells.loc[model, metric]) for metric in order[1]))
    kept = _kept(scores)
    if kept:
        table.add_section()
        table.add_row("student / teacher", *(f"{100 * kept[metric]:.0f} %" for metric in order[1]))
    console.print(f"{title}: {_caption(scores)}", highlight=False, soft_wrap=True)
    console.print(table)


def _kept(scores: Sequence[Score]) -> dict[str, float]:
    """How much of its teacher's score the student has, by metric; empty where there is no teacher."""
    student, teacher = (
        {score.metric: score.value for score in scores if score.model.startswith(role)}
        for role in ("student", "teacher")
    )
    return {metric: student[metric] / teacher[metric] for metric in teacher if teacher[metric] > 0}


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f}" + (f" ± {100 * score.sd:.1f}" if score.sd is not None else "")


def _caption(scores: Sequence[Score]) -> str:
    first = scores[0].protocol
    draws = next((f"; ± sd over {score.n} draws of labels" for score in scores if score.n is not None), "")
    return f"accuracy in % on {first['n_test']:,} test images, {first['n_train']:,} training images{draws}"
