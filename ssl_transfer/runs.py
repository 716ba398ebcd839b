"""The run folder: which one belongs to a recipe, and what is in it. Imports no torch.

``recipe.yaml`` (resolved) · ``run.json`` (identity, progress, where and how fast it ran) · ``state/`` (to resume;
empty when finished) · ``metrics.jsonl`` · ``model.safetensors`` + ``config.json`` · ``scores.json`` · ``report.html``.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from ssl_transfer import config
from ssl_transfer.errors import UserError
from ssl_transfer.files import write_json, write_text


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` says of a run."""

    identity: str
    steps: int = 0
    total_steps: int = 0
    seconds: float = 0.0  # spent in training steps, over all continuations
    images_per_second: float = 0.0
    finished: bool = False
    processes: int = 1
    device: str = ""
    precision: str = ""
    versions: dict[str, str] | None = None


def read_info(folder: Path) -> RunInfo | None:
    """What ``folder`` says of itself, or None where it holds no run."""
    try:
        return RunInfo(**json.loads((folder / "run.json").read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'run.json'} is damaged ({error}); remove the folder to start again") from None


def write_info(folder: Path, info: RunInfo) -> None:
    """Replace what ``folder`` says of itself."""
    write_json(folder / "run.json", asdict(info))


def folder_of(recipe: config.Recipe) -> tuple[Path, str | None]:
    """The folder that belongs to ``recipe``, and a sentence where it is not the one its name suggests.

    A folder belongs to the recipe whose identity it carries. Where another recipe of the same name was run, this one
    goes beside it, under its name and identity, so nothing is overwritten and each is found again.
    """
    plain = Path(recipe.train.runs) / recipe.name
    own = config.identity_hash(recipe)
    info = read_info(plain)
    if info is None:
        if plain.exists() and (not plain.is_dir() or any(plain.iterdir())):
            raise UserError(
                f"{plain} exists and is not a run of this program; choose another name=... or train.runs=..., "
                "or move it away"
            )
        return plain, None
    if info.identity == own:
        return plain, None
    return plain.with_name(f"{plain.name}-{own}"), (
        f"{plain} holds another recipe ({'; '.join(_changes(plain, recipe))}), "
        f"so this one is kept in {plain.name}-{own}"
    )


def claim(recipe: config.Recipe) -> tuple[Path, str | None]:
    """Make the recipe's folder, write the recipe into it, and return what :func:`folder_of` says."""
    folder, notice = folder_of(recipe)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
        if read_info(folder) is None:
            write_info(folder, RunInfo(config.identity_hash(recipe)))
        write_text(folder / "recipe.yaml", config.dump(recipe))
    except OSError as error:
        raise UserError(
            f"cannot write the run folder {folder} ({error.strerror}); choose another with train.runs=..."
        ) from None
    return folder, notice


def read_recipe(folder: Path) -> config.Recipe:
    """The resolved recipe that a run folder was made by."""
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run folder: it has no recipe.yaml")
    return config.load(folder / "recipe.yaml")


def asked(recipe: config.Recipe) -> list[dict[str, Any]]:
    """The scores of the end that the recipe asks for, as ``scores.json`` notes them."""
    return [kind.model_dump(mode="json") for kind in recipe.score if not isinstance(kind, config.Monitor)]


def is_complete(recipe: config.Recipe, folder: Path) -> bool:
    """Whether ``folder`` holds the recipe's run, trained to its end, with the scores it asks for."""
    info = read_info(folder)
    if info is None or not info.finished or info.identity != config.identity_hash(recipe):
        return False
    try:
        return json.loads((folder / "scores.json").read_text())["asked"] == asked(recipe)
    except (OSError, ValueError, KeyError):  # missing or damaged: it will be written anew
        return False


def _changes(folder: Path, recipe: config.Recipe) -> list[str]:
    try:
        old = yaml.safe_load((folder / "recipe.yaml").read_text())
        changes = config.differences(config.identity(config.Recipe.model_validate(old)), config.identity(recipe))
    except (OSError, ValueError, yaml.YAMLError):
        return ["made by another version of this program"]
    return changes[:3] + ([f"and {len(changes) - 3} more"] if len(changes) > 3 else [])
