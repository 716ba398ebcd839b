"""The run folder of a recipe: where it is, what it says of itself, and who may write into it. Loads no torch.

A run folder holds:

``recipe.yaml`` (resolved) · ``run.json`` (identity, progress, where and how fast it ran) · ``state/`` (to resume;
empty when finished) · ``metrics.jsonl`` · ``model.safetensors`` + ``config.json`` · ``scores.json`` · ``report.html``.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ssl_transfer import config
from ssl_transfer.errors import UserError
from ssl_transfer.files import is_leftover, read_json, remove_leftovers, verified, with_checksum, write_json, write_text
from ssl_transfer.runs.locks import is_free, locked
from ssl_transfer.runs.scores_file import read_scores
from ssl_transfer.scores import Scores
from ssl_transfer.section import reason


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` says of a run; ``steps`` are done out of ``total_steps``."""

    identity: str
    steps: int = 0
    total_steps: int = 0
    seconds: float = 0.0  # in training steps, summed over all the times that the run was continued
    images_per_second: float = 0.0
    finished: bool = False
    processes: int = 1
    device: str = ""
    precision: str = ""
    versions: dict[str, str] | None = None
    images: dict[str, Any] | None = None  # how many were taken of those found to train on, and what was left out
    teacher_loss: float | None = None  # that the teacher's own embedding would have, where the loss compares embeddings
    origin: dict[str, str] | None = None  # fingerprints of the training images and of a teacher's file


_RUN_INFO = TypeAdapter(RunInfo)
_TIMES = ("seconds", "images_per_second")


def read_info(folder: Path) -> RunInfo | None:
    """The ``run.json`` of ``folder``, None where there is none.

    Raises:
        UserError: the file is damaged, or another user's.
    """
    try:
        return _RUN_INFO.validate_python(verified(read_json(folder / "run.json"), unchecked=_TIMES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise UserError(
            f"{folder / 'run.json'} cannot be read ({error.strerror}): ask the user whose run it is"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / 'run.json'} is damaged ({reason(error)}); remove the folder to start again"
        ) from None


def write_info(folder: Path, info: RunInfo) -> None:
    """Write the ``run.json`` of ``folder``."""
    write_json(folder / "run.json", with_checksum(asdict(info), unchecked=_TIMES))


def folder_of(recipe: config.Recipe) -> tuple[Path, str | None]:
    """The folder of ``recipe``, and a sentence for the user where it is not called ``<runs>/<name>``.

    A folder belongs to the recipe whose identity its ``run.json`` names. If ``<runs>/<name>`` belongs to another recipe
    of the same name, this one gets ``<runs>/<name>-<identity>``: nothing is overwritten, and the same recipe always
    finds its folder again. A run that never took a step gives its folder up to the next recipe.

    Raises:
        UserError: a file or folder is in the way that is not a run of this program.
    """
    plain = Path(recipe.train.runs) / recipe.name
    own = config.identity_hash(recipe)
    info = read_info(plain)
    if info is None:
        if plain.exists() and (not plain.is_dir() or any(not _is_ours(path) for path in plain.iterdir())):
            raise UserError(
                f"{plain} exists and is not a run of this program; choose another name=... or train.runs=..., "
                "or move it away"
            )
        return plain, None
    if info.identity == own:
        return plain, None
    beside = plain.with_name(f"{plain.name}-{own}")
    other = read_info(beside)
    if other is None and _never_started(plain, info):
        return plain, None
    if other is not None and other.identity != own:
        raise UserError(f"{beside} holds another recipe than its name says; move it away")
    return beside, (
        f"{plain} holds another recipe ({'; '.join(_changes(plain, recipe))}), "
        f"so this one is kept in {plain.name}-{own}"
    )


def claim(recipe: config.Recipe) -> tuple[Path, str | None]:
    """Make the folder of ``recipe`` and write the recipe into it; returns what :func:`folder_of` does.

    Raises:
        UserError: the folder cannot be written, or something else is in the way.
    """
    own, folder = config.identity_hash(recipe), Path(recipe.train.runs) / recipe.name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent):  # another program may want the same name now
            folder, notice = folder_of(recipe)
            folder.mkdir(exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(13, "Permission denied")
            info = read_info(folder)
            if info is None or info.identity != own:
                write_info(folder, RunInfo(own))
            write_text(folder / "recipe.yaml", config.dump(recipe))
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {folder} ({error.strerror}); choose another with train.runs=..."
        ) from None
    return folder, notice


@contextmanager
def exclusive_folder(
    recipe: config.Recipe, while_waiting: Callable[[Path, int], None]
) -> Iterator[tuple[Path, str | None, RunInfo]]:
    """Inside the block no other program trains in the recipe's folder; gives it, the notice and its ``run.json``.

    While another program holds the folder, ``while_waiting(folder, seconds)`` is called every second; it may raise.

    Raises:
        UserError: the folder cannot be written, or something else is in the way.
    """
    while True:
        folder, notice = claim(recipe)
        with locked(folder, partial(while_waiting, folder)):
            for place in (folder, folder / "state"):
                remove_leftovers(place)
            info = read_info(folder)
            if info is not None and info.identity == config.identity_hash(recipe):
                try:
                    yield folder, notice, info
                except BaseException:
                    _remove_if_empty(folder)
                    raise
                return
        # Another recipe took the name before the folder was locked: look again for one of our own.


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of an attempt that came to nothing: no step was taken and nothing but its recipe is there."""
    info = read_info(folder)
    if info is None or info.steps or info.finished:
        return
    own = {"recipe.yaml", "run.json", ".lock", "state"}
    if {path.name for path in folder.iterdir()} <= own and not any((folder / "state").glob("*")):
        shutil.rmtree(folder, ignore_errors=True)


def read_recipe(folder: Path) -> config.Recipe:
    """The complete recipe that the run in ``folder`` was made by.

    Raises:
        UserError: there is no recipe in the folder, it is not valid, or not the one that the run was made by.
    """
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no recipe.yaml")
    recipe, info = config.load(folder / "recipe.yaml"), read_info(folder)
    if info is not None and info.identity != config.identity_hash(recipe):
        raise UserError(
            f"{folder / 'recipe.yaml'} is not the recipe that the run was made by, whose identity is {info.identity}: "
            "bring it back, or run the original recipe, which writes it anew"
        )
    return recipe


def final_scores(recipe: config.Recipe) -> list[dict[str, Any]]:
    """The entries of the recipe's ``score`` that are taken after training, in the form that ``scores.json`` keeps."""
    return [kind.model_dump(mode="json") for kind in recipe.score if kind.columns()]


def score_settings(recipe: config.Recipe) -> dict[str, Any]:
    """Everything of the recipe that decides the scores of a trained model, in the form that ``scores.json`` keeps."""
    irrelevant = {
        "download",
        "unchecked",
        "resident",
        "workers",
        "batch_size",
        "per_class",
        "views",
        "fixed_views",
        "augment",
    }
    return {
        "asked": final_scores(recipe),
        "data": recipe.data.model_dump(mode="json", exclude=irrelevant, exclude_none=True),
    }


def has_scores(recipe: config.Recipe, folder: Path) -> bool:
    """Whether ``folder`` holds the scores that the recipe asks for, of the images that it names."""
    try:
        found = read_scores(folder)
    except UserError:  # damaged: it will be written anew
        return False
    return found is not None and _agrees(found.about, score_settings(recipe))


def _is_ours(path: Path) -> bool:
    """Whether a file in a folder without a ``run.json`` is what this program leaves when it is killed early."""
    return path.name == ".lock" or is_leftover(path)


def _agrees(noted: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the settings in ``scores.json`` are those that are wanted.

    Settings that an earlier version did not write count as agreeing, and options that the schema has gained since then
    count as left at their defaults.
    """
    try:
        noted_kinds = TypeAdapter(Scores).validate_json(json.dumps(noted.get("asked", wanted["asked"])))
    except ValidationError:
        return False
    kept = [kind.model_dump(mode="json") for kind in noted_kinds]
    return all(kind in kept for kind in wanted["asked"]) and noted.get("data", wanted["data"]) == wanted["data"]


def is_complete(recipe: config.Recipe, folder: Path) -> bool:
    """Whether ``folder`` holds the recipe's run, trained to its end, with the scores it asks for."""
    info = read_info(folder)
    trained = info is not None and info.finished and info.identity == config.identity_hash(recipe)
    return trained and has_scores(recipe, folder)


def _never_started(folder: Path, info: RunInfo) -> bool:
    """Whether the run in ``folder`` has not taken a step and no program is working on it."""
    return info.steps == 0 and not info.finished and not (folder / "metrics.jsonl").exists() and is_free(folder)


def _changes(folder: Path, recipe: config.Recipe) -> list[str]:
    try:
        old = read_recipe(folder)
    except UserError:
        return ["made by another version of this program"]
    changes = config.differences(config.identity(old), config.identity(recipe))
    return changes[:3] + ([f"and {len(changes) - 3} more"] if len(changes) > 3 else [])
