"""``ssl_transfer.distill``: from a teacher and images to a student, by a recipe that is written from a few words.

A default of a recipe is written in its schema; here stands what a recipe cannot leave open, and this module fills in.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from ssl_transfer import config, runs
from ssl_transfer.config.data import HELD_OUT, Dataset, Decoded
from ssl_transfer.config.schema import Recipe
from ssl_transfer.data import Images, load_images
from ssl_transfer.embeddings.embedder import Embedder, load
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.section import Section, suggest
from ssl_transfer.tasks.sections import Task
from ssl_transfer.teachers.section import named_source
from ssl_transfer.training.metrics import NAME, read_metrics

SIZE = 224  # to which images of files are brought: what most published networks were trained on
SMALLEST_BATCH, BATCH = 32, 256
LARGEST_TEST = 1_000  # images that are held out to score, a tenth of those there are
NEIGHBORS, COMPARED = 20, 10


class Run:
    """A run folder: the recipe that made it, its model, its scores.

    Raises:
        UserError: ``folder`` is no run folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.recipe = runs.read_recipe(self.folder)

    def __repr__(self) -> str:
        info = runs.read_info(self.folder)
        state = "not started" if info is None else "finished" if info.finished else f"{info.steps:,} steps done"
        return f"Run({str(self.folder)!r}, {self.recipe.task.kind} into {self.recipe.model.backbone}, {state})"

    @property
    def model(self) -> Embedder:
        """The trained model, in eval mode.

        Raises:
            UserError: the run is not finished, or its files are damaged.
        """
        with user_mistakes():
            return load(self.folder)

    @property
    def scores(self) -> pd.DataFrame:
        """A row a model, by its role and name, and a column a metric; accuracies are fractions.

        Raises:
            UserError: no scores were taken, or their file is damaged.
        """
        scored = runs.read_scores(self.folder)
        if scored is None:
            raise UserError(f"{self.folder} has no scores; take them with ssl-transfer score {self.folder}")
        rows = [(score.role, score.model, score.metric, score.value) for score in scored.scores]
        table = pd.DataFrame(rows, columns=["role", "model", "metric", "value"])
        wide = table.pivot(index=["role", "model"], columns="metric", values="value")
        order = table[["role", "model"]].drop_duplicates()
        return wide.reindex(index=pd.MultiIndex.from_frame(order), columns=list(table["metric"].unique()))

    @property
    def metrics(self) -> pd.DataFrame:
        """What was logged of each step: the loss, the learning rate, and whatever was watched."""
        rows, _ = read_metrics(self.folder / NAME)
        return pd.DataFrame(rows.values()).set_index("step") if rows else pd.DataFrame()


def distill(
    teacher: str | Path | Mapping[str, Any] | list[Any],
    student: str | Mapping[str, Any],
    data: str | Path | Mapping[str, Any],
    *,
    epochs: int = 100,
    **keys: Any,
) -> Run:
    """Train ``student`` on what ``teacher`` says of ``data``, score both, and return the run, which is a recipe's.

    ``teacher`` is a model in one word (:func:`ssl_transfer.load`), the path of a recipe, or the keys of
    ``task.teacher``, or a list of several of these; ``student`` is the name of a backbone, or the keys of ``model``;
    ``data`` is a folder of images, the name of a data set, or the keys of ``data``. ``keys`` are those of a recipe: a
    section with its keys (``optim={"lr": 1e-3}``), or a key of one section by itself (``batch_size=128``,
    ``image_size=96``, ``seed=1``).

    What a recipe must say and is not said is filled in: images of 224 px, random crops in batches of at most 256, AdamW
    at 1e-3, and scores by what labels there are. Of a folder without a test split a tenth of the images, at most 1,000,
    is held out and scored.

    The folder is found again when the same is asked for: a run that was stopped goes on, one that is finished returns.

    Raises:
        UserError: with everything that is wrong with what was asked for, or what training or scoring refuses.
        Interrupted: the program was asked to stop; the same call goes on from there.
    """
    with user_mistakes():
        raw = _recipe(teacher, student, data, epochs, keys)
    recipe = config.of_mapping(raw, "distill")
    from ssl_transfer import recipe as running

    return Run(running.run(recipe))


def _recipe(teacher: Any, student: Any, data: Any, epochs: int, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A whole recipe from what was said."""
    said: dict[str, dict[str, Any]] = {
        "data": _named_data(data),
        "model": {"backbone": student} if isinstance(student, str) else dict(student),
        "task": {"teacher": _named_teacher(teacher)},
        "optim": {},
        "train": {"epochs": epochs},
    }
    whole: dict[str, Any] = {}
    for key, value in keys.items():
        if key in said and isinstance(value, Mapping):
            said[key] |= value
        elif key in said:
            raise UserError(f"{key} is a section of a recipe: give its keys, as in {key}={{...}}")
        elif key in Recipe.model_fields:
            whole[key] = value
        else:
            said[_section_of(key)][key] = value
    warms_up = said["optim"].get("schedule", "cosine") == "cosine" and isinstance(epochs, int)
    optim = {
        "name": "adamw",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "warmup_epochs": min(5.0, epochs / 10) if warms_up else 0.0,
    }
    images, score = _completed(said["data"])
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", f"{images['name']}-{said['model'].get('backbone')}").strip("-."),
        "seed": 0,
        **said,
        "data": images["data"],
        "task": {"kind": "relaxed_contrastive", **said["task"]},
        "optim": optim | said["optim"],
        "score": score,
        **whole,
    }


def _named_teacher(teacher: Any) -> Any:
    if isinstance(teacher, list):
        return [_named_teacher(one) for one in teacher]
    if isinstance(teacher, Mapping):
        return dict(teacher)
    word = str(teacher)
    return {"recipe": word} if word.endswith((".yaml", ".yml")) else dict(named_source(word))


def _named_data(data: Any) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return dict(data)
    word = str(data)
    if Path(word).expanduser().is_dir():
        return {"dataset": "folder", "root": word}
    if word in get_args(Dataset):
        return {"dataset": word}
    raise FileNotFoundError(
        f"there is no folder {word}, and no data set of that name{suggest(word, get_args(Dataset))}"
    )


def _section_of(key: str) -> str:
    """The only section that has ``key``.

    Raises:
        UserError: none has, or several have.
    """
    tasks = {field for kind in get_args(get_args(Task)[0]) for field in kind.model_fields}
    sections: dict[str, type[Section]] = {
        "data": config.Data,
        "model": config.Model,
        "optim": config.Optim,
        "train": config.Train,
    }
    fields = {"task": tasks, **{name: set(section.model_fields) for name, section in sections.items()}}
    owners = [name for name, names in fields.items() if key in names]
    if len(owners) == 1:
        return owners[0]
    if owners:
        raise UserError(
            f"{key} is a key of {' and of '.join(owners)}: say of which, as in {owners[0]}={{'{key}': ...}}"
        )
    near = difflib.get_close_matches(
        key, {*Recipe.model_fields, *(name for names in fields.values() for name in names)}
    )
    raise UserError(f"{key} is no key of a recipe" + (f": did you mean {' or '.join(near)}?" if near else ""))


def _completed(said: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The keys of ``data`` with those that must be given, what to call the images, and scores that they allow."""
    dataset, root = str(said.get("dataset")), Path(str(said.get("root", "data"))).expanduser()
    data = {"augment": {"preset": "crop", "crop_scale": [0.3, 1.0]}, **said}
    if dataset not in get_args(Decoded):  # arrays with labels and a test split, or a name that the schema refuses
        return {"name": dataset, "data": {"batch_size": BATCH, **data}}, _scores(
            labeled=True, learned=None, tested=None
        )
    data = {"image_size": SIZE, **data}

    def listed(split: str) -> Images | None:
        options = {key: data[key] for key in ("train_classes", "labels", "image") if data.get(key) is not None}
        try:
            return load_images(dataset, root, split=split, image_size=SIZE, decode=False, **options)
        except FileNotFoundError:
            return None

    train = listed(data.get("split") or data.get("train") or "train")
    if train is None:  # in the words of the reader
        load_images(dataset, root, split="train", image_size=SIZE, decode=False)
        raise AssertionError
    test = None if data.get("test") == HELD_OUT or "held_out" in data else listed(data.get("test") or "test")
    if test is None:
        data = {"held_out": min(LARGEST_TEST, max(1, len(train) // 10)), "test": HELD_OUT, **data}
    learned = len(train) - (data.get("held_out") or 0)
    tested = len(test) if test is not None else data["held_out"]
    data = {"batch_size": _batch_of(learned), **data}
    labeled = train.labels is not None and (test is None or test.labels is not None)
    return {"name": root.absolute().name, "data": data}, _scores(labeled=labeled, learned=learned, tested=tested)


def _batch_of(images: int) -> int:
    """The batch that is filled in: an eighth of the images in a power of two, but not less than 32 if there are."""
    eighth = 2 ** ((images // 8).bit_length() - 1) if images >= 8 else 1
    return max(2, min(BATCH, max(eighth, min(SMALLEST_BATCH, images))))


def _scores(*, labeled: bool, learned: int | None, tested: int | None) -> list[dict[str, Any]]:
    """Neighbors and a linear probe where there are labels, and agreement with the teacher, which needs none."""

    def at_most(wished: int, available: int | None) -> int:
        return wished if available is None else max(1, min(wished, available - 1))

    agreement = {"kind": "agreement", "k": at_most(COMPARED, None if tested is None else tested // 2)}
    if not labeled:
        return [agreement]
    return [{"kind": "knn", "k": [at_most(NEIGHBORS, learned)]}, {"kind": "linear_probe"}, agreement]
