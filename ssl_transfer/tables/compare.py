"""Scores of many runs in one table: mean and spread over seeds, paired differences, published numbers beside them.

Runs that differ in nothing but seeds are one *method*. Reads run folders, which say all it takes; imports no torch.
"""

import glob
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer import config, runs
from ssl_transfer.catalog import published
from ssl_transfer.catalog.roles import TRAINED
from ssl_transfer.errors import UserError
from ssl_transfer.scores.score import Score
from ssl_transfer.section import suggest
from ssl_transfer.tables.methods import Settings, labels
from ssl_transfer.tables.protocols import in_words, refuse_mixed
from ssl_transfer.tasks.sections.labels import Metric

# The settings that decide the other models of the table; raw pixels have none.
_MADE_BY = {"untrained": "model.", "raw pixels": "none."}


@dataclass(frozen=True)
class Run:
    """A finished and scored run."""

    folder: Path
    recipe: config.Recipe
    settings: Settings
    scores: list[Score]
    about: dict[str, Any]  # what is common to the scores


@dataclass(frozen=True)
class Comparison:
    """What a table is written from; values are fractions.

    ``summary`` has a row a model and metric: role, label, metric, mean, sd (nan for one run), n, published, source.
    ``differences`` has a row a method and metric: label, metric, mean, se (nan for one pair), n. ``values`` has a row a
    score of a run.
    """

    summary: pd.DataFrame
    differences: pd.DataFrame
    values: pd.DataFrame
    baseline: str
    caption: str
    protocols: dict[str, str]  # of the trained models, by metric
    warning: str | None = None  # what makes the methods no equals


def read_run(folder: Path) -> Run:
    """The run in ``folder``.

    Raises:
        UserError: it is no run, not finished, or not scored.
    """
    recipe, info = runs.read_recipe(folder), runs.read_info(folder)
    if info is None or not info.finished:
        raise UserError(f"{folder} is not finished; run its recipe again to continue it")
    scored = runs.read_scores(folder)
    if scored is None:
        raise UserError(f"{folder} has no scores; take them with ssl-transfer score {folder}")
    return Run(folder, recipe, Settings.of(recipe), scored.scores, scored.about)


def finished(folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Those of several folders that can be compared, and a sentence for each run that cannot: not finished, no scores.

    Patterns such as ``runs/digits-*`` are filled in, and files among what they match are passed over.

    Raises:
        UserError: a pattern matches nothing, or no run is left.
    """
    found: list[Path] = []
    for folder in folders:
        if not any(letter in str(folder) for letter in "*?[") or folder.exists():
            found.append(folder)
            continue
        matched = sorted(path for path in map(Path, glob.glob(str(folder))) if path.is_dir())
        if not matched:
            raise UserError(f"nothing matches {folder}")
        found += matched
    kept, left_out = [], []
    for folder in found:
        info = runs.read_info(folder)
        if info is None or (info.finished and runs.read_scores(folder) is not None):
            kept.append(folder)  # what is no run at all is refused by its name
        else:
            why = "has no scores" if info.finished else f"stands at step {info.steps:,} of {info.total_steps:,}"
            left_out.append(f"{folder} {why}, and is left out")
    if not kept:
        raise UserError("; ".join(left_out))
    return kept, left_out


def compare(folders: Sequence[Path], *, baseline: str | None = None) -> Comparison:
    """Put the scores of runs together; differences are to the method called ``baseline``, or to the first one.

    Raises:
        UserError: a folder is no scored run, two are the same run, scores were not taken alike, or no method is
            called ``baseline``.
    """
    found = [read_run(folder) for folder in folders]
    _refuse_twins(found)
    taken = [(_column(score), str(run.folder), _protocol(run, score)) for run in found for score in run.scores]
    refuse_mixed(taken)
    values = pd.DataFrame(_rows(found)).sort_values("role", key=_place, kind="stable", ignore_index=True)
    trained = values[values["role"].isin(TRAINED)]
    methods = list(trained["label"].unique())
    if baseline is not None and baseline not in methods:
        raise UserError(f"there is no method {baseline!r} to compare with{suggest(baseline, methods)}")
    baseline = baseline or methods[0]
    return Comparison(
        summary=summarize(values),
        differences=paired_differences(trained, baseline),
        values=values,
        baseline=baseline,
        caption=_caption(values, found),
        warning=_unequal_budgets(found),
        protocols={
            score.metric: in_words(_protocol(run, score))
            for run in found
            for score in run.scores
            if score.role in TRAINED
        },
    )


def summarize(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (of a sample: n - 1) and n of every metric of every model.

    n counts what is independent, which the column ``unit`` tells: trained models by their seeds, untrained networks by
    theirs, teachers by their recipes. Values of one unit are one: a teacher that many students share is one teacher.
    """
    keys = ["role", "label", "metric"]
    units = values.groupby([*keys, "unit"], sort=False)["value"].mean().reset_index()
    table = units.groupby(keys, sort=False)["value"].agg(mean="mean", sd="std", n="count").reset_index()
    return table.merge(values.drop_duplicates(keys)[[*keys, "published", "source"]], on=keys)


def paired_differences(trained: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """How much better each method is than ``baseline``, from runs with the same seeds.

    The mean over pairs, and its standard error sd / sqrt(n). Seeds move the scores of both sides together, which a
    difference of two means would count as noise.
    """
    rows = []
    for metric, scores in trained.groupby("metric", sort=False):
        table = scores.pivot_table(index="unit", columns="label", values="value", sort=False)
        for label in table.columns.drop(baseline, errors="ignore") if baseline in table else ():
            pairs = (table[label] - table[baseline]).dropna()
            if len(pairs):
                error = pairs.std() / sqrt(len(pairs))
                rows.append({"label": label, "metric": metric, "mean": pairs.mean(), "se": error, "n": len(pairs)})
    return pd.DataFrame(rows, columns=["label", "metric", "mean", "se", "n"])


def _rows(found: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One row a score: of which model, and to which independent unit it belongs."""
    # Models of one name, made by different settings, are rows of their own, named after the method they belong to.
    makers = defaultdict(set)
    for run in found:
        for score in run.scores:
            makers[score.model].add(_made_by(run, score).without_seeds().name())
    seeds = _seeds([run.settings for run in found])
    for run, own_seeds, method in zip(found, seeds, labels([run.settings for run in found]), strict=True):
        for score in run.scores:
            role, model = score.role, score.model
            unit = own_seeds if role in TRAINED else _made_by(run, score).seeds().name()
            printed = _published(run, score)
            yield {
                "role": role,
                "label": method if role in TRAINED else model if len(makers[model]) == 1 else f"{model} of {method}",
                "metric": score.metric,
                "value": score.value,
                "unit": f"{unit} seed {run.recipe.seed}" if role == "untrained" else unit,
                "run": str(run.folder),
                "seed": run.recipe.seed,
                "published": printed.value if printed else None,
                "source": printed.source if printed else None,
            }


def _seeds(found: Sequence[Settings]) -> list[str]:
    """The seeds of each run that are not the same in all: a student without a teacher pairs with one that has one."""
    given = defaultdict(set)
    for settings in found:
        for key, value in settings.seeds().items():
            given[key].add(value)
    return [
        Settings({key: value for key, value in settings.seeds().items() if len(given[key]) > 1}).name()
        for settings in found
    ]


def _made_by(run: Run, score: Score) -> Settings:
    if score.role == "teacher":
        return _teacher_made_by(run, score)
    part = _MADE_BY.get(score.role)
    return run.settings if part is None else run.settings.below(part)


def _teacher_made_by(run: Run, score: Score) -> Settings:
    """The settings of a teacher, under the same keys whether it is alone or one of several."""
    part = "task.teacher."
    if len(run.recipe.teachers) > 1:
        part += f"{list(dict.fromkeys(s.model for s in run.scores if s.role == 'teacher')).index(score.model)}."
    made = run.settings.below(part)
    # What a teacher hands on, and what that weighs, has no part in its own scores.
    return Settings(
        {key.removeprefix(part): made[key] for key in made if key not in (f"{part}output", f"{part}weight")}
    )


def _column(score: Score) -> str:
    """What is compared with each other; a teacher may be scored by another layer than its student."""
    role = score.role
    return f"{score.metric} of the {'trained model' if role in TRAINED else role}"


def _protocol(run: Run, score: Score) -> dict[str, Any]:
    draws = {} if score.n is None else {"draws": score.n}
    return {**run.about, **draws, **score.protocol}


def _published(run: Run, score: Score) -> published.Published | None:
    """What was printed for this very setting: data set, networks, method and metric."""
    dataset, metric, role = run.recipe.data.dataset, score.metric, score.role
    teachers = run.recipe.teachers
    teacher = teachers[0].recipe if len(teachers) == 1 else None
    if not run.recipe.data.sees_all("test"):
        return None
    if any(recipe is not None and not recipe.data.sees_all("training") for recipe in (run.recipe, teacher)):
        return None
    if role == "trained":
        return published.find(dataset, None, _network(run.recipe), _method(run.recipe), metric)
    if teacher is None or teacher.data.dataset != dataset:
        return None
    made = (_network(teacher), _method(teacher))
    if role == "teacher":
        return published.find(dataset, None, *made, metric)
    if role == "student":
        return published.find(dataset, made, _network(run.recipe), _method(run.recipe), metric)
    return None


def _network(recipe: config.Recipe) -> str:
    return published.network(recipe.model.backbone, recipe.model.embedding_dim)


def _method(recipe: config.Recipe) -> str:
    return f"metric {recipe.task.loss}" if isinstance(recipe.task, Metric) else recipe.task.kind


def _place(roles: pd.Series) -> pd.Series:
    """Where rows stand: teachers, then what was trained, then the rest."""
    return roles.map(lambda role: 0 if role == "teacher" else 1 if role in TRAINED else 2)


def _refuse_twins(found: Sequence[Run]) -> None:
    first: dict[str, Run] = {}
    for run in found:
        twin = first.setdefault(run.settings.name(), run)
        if twin is not run:
            raise UserError(f"{twin.folder} and {run.folder} are the same run; name one of them")


def _unequal_budgets(found: Sequence[Run]) -> str | None:
    """What methods were trained for, where that is not the same."""
    budgets = defaultdict(list)
    for run in found:
        recipe, info = run.recipe, runs.read_info(run.folder)
        steps = info.total_steps if info is not None else 0
        budgets[f"{recipe.train.epochs} epochs, {steps * recipe.data.batch_size:,} images seen"].append(run.folder.name)
    if len(budgets) == 1:
        return None
    told = "; ".join(f"{budget}: {', '.join(names)}" for budget, names in budgets.items())
    return f"These runs were not trained for equally long, which a difference may come from. {told}."


def _caption(values: pd.DataFrame, found: Sequence[Run]) -> str:
    """The data set and the networks."""
    recipes = [run.recipe for run in found]
    parts = {
        "": [recipe.data.dataset for recipe in recipes],
        "from ": list(values.loc[values["role"] == "teacher", "label"]),
        "into ": [_network(recipe) for recipe in recipes],
    }
    return ", ".join(before + " or ".join(dict.fromkeys(names)) for before, names in parts.items() if names)
