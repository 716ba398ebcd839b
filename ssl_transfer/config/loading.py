"""From a YAML file and overrides to a recipe, with every problem told at once."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from ssl_transfer.config.problems import NotRead, problems_of, told
from ssl_transfer.config.reading import Unreadable, parse, write
from ssl_transfer.config.schema import Recipe
from ssl_transfer.errors import UserError
from ssl_transfer.section import location, short
from ssl_transfer.tasks.sections import Task

_LARGEST_FILE = 100_000  # bytes; a recipe is a screen of text


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, defaults written out; what is left out is null, that is: off, or taken from its context."""
    return write(recipe.model_dump(mode="json", exclude_none=True))


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, complete and validate a recipe; ``overrides`` are ``key.path=value``, with the value in YAML.

    Raises:
        UserError: with every problem of the file and of the overrides.
    """
    path = Path(path)
    return _validated(_read(path), path, overrides)


def of_mapping(raw: Mapping[str, Any], title: str) -> Recipe:
    """Complete and validate a recipe that is in no file; paths in it begin at the folder of the program.

    Raises:
        UserError: with every problem, below ``title``.
    """
    return _validated(copy.deepcopy(dict(raw)), Path(title), ())


def looks_like_a_recipe(path: Path) -> bool:
    """Whether a file has most of the keys of a recipe, and may be meant as one."""
    try:
        return len(_read(path).keys() & Recipe.model_fields.keys()) >= 5
    except UserError:
        return False


def load_teacher(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with a teacher, or a file that has only its ``teacher`` and ``data``, made a recipe of.

    Raises:
        UserError: with every problem of the file and of the overrides, or because there is no teacher in it.
    """
    path = Path(path)
    raw = _read(path)
    if "teacher" in raw:
        data = {"batch_size": 2, "augment": "eval", **raw.pop("data")} if isinstance(raw.get("data"), dict) else None
        task = {"kind": "relaxed_contrastive", "teacher": raw.pop("teacher")}
        raw |= {"name": "teacher", "seed": 0, "model": {"backbone": "resnet18"}, "task": task, "score": []}
        raw |= {"optim": {"name": "sgd", "lr": 1.0}, "train": {"epochs": 1}} | ({"data": data} if data else {})
    recipe = _validated(raw, path, overrides)
    if not recipe.teachers:
        raise UserError(f"{path} has no teacher: give a recipe with task.teacher, or a file with teacher and data")
    return recipe


def _validated(raw: dict[str, Any], path: Path, overrides: Sequence[str]) -> Recipe:
    problems = []
    _complete(raw, path.parent)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problems.append(f"{override!r} is not an override; write key.path=value, for example train.epochs=5")
            continue
        try:
            _assign(raw, key.split("."), parse(value))
        except (Unreadable, UserError) as error:
            problems.append(f"{override!r} cannot be applied: {error}")
        _complete(raw, path.parent)  # for overrides of what this one names
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, raw, Recipe)
    if problems:
        raise UserError(told(path, problems))
    return recipe


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            near = difflib.get_close_matches(str(path), [str(file) for file in Path("recipes").rglob("*.yaml")], n=1)
            raise UserError(f"there is no recipe {path}" + (f"; did you mean {near[0]}?" if near else ""))
        if path.stat().st_size > _LARGEST_FILE:
            raise UserError(f"{path} has more than {_LARGEST_FILE:,} bytes, so it is no recipe")
        raw = parse(path.read_text(encoding="utf-8"))
    except Unreadable as error:
        where = "" if error.line is None else f", line {error.line}"
        raise UserError(f"{path}{where}: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as UTF-8, see its byte {error.start + 1}") from None
    except OSError as error:
        raise UserError(f"the recipe {path} cannot be read: {error.strerror}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    return raw


_WHERE = {"data": ("root", "download", "workers"), "train": ("runs", "cpu_threads", "tracker")}


def _complete(raw: dict[str, Any], folder: Path, above: tuple[Path, ...] = ()) -> None:
    """Write out what may be written short, in place: an augmentation's preset, a teacher's recipe by its path.

    Teachers look for data and runs where the student does, so one override moves all, and their own teachers too.
    ``above`` are the files that led here, each naming the next. A file that cannot be read is left to be told.
    """
    data, task = raw.get("data"), raw.get("task")
    if isinstance(data, dict) and isinstance(data.get("augment"), str):
        data["augment"] = {"preset": data["augment"]}
    teachers = task.get("teacher") if isinstance(task, dict) else None
    for teacher in teachers if isinstance(teachers, list) else [teachers]:
        if isinstance(teacher, dict):
            _complete_teacher(teacher, raw, folder, above)


def _complete_teacher(teacher: dict[str, Any], raw: dict[str, Any], folder: Path, above: tuple[Path, ...]) -> None:
    """Read the recipe that a teacher of ``raw`` names, if it names one, and complete it."""
    recipe = named = teacher.get("recipe")
    if isinstance(named, str) and not isinstance(named, NotRead):
        try:
            path = folder / location(named)
            if path.resolve() in above:
                raise UserError(f"{path} names itself as its teacher, or as that of its teacher: name another recipe")
            recipe, folder, above = _read(path), path.parent, (*above, path.resolve())
        except (UserError, ValueError) as error:
            recipe = NotRead(named)
            recipe.why = str(error)
        teacher["recipe"] = recipe
    if isinstance(recipe, dict):
        for section, keys in _WHERE.items():
            student, own = raw.get(section), recipe.get(section)
            if isinstance(student, dict) and isinstance(own, dict):
                own.update({key: student[key] for key in keys if key in student})
        _complete(recipe, folder, above)


def _assign(raw: dict[str, Any], path: list[str], value: Any) -> None:
    """Set one dotted key. Another ``kind`` takes along only the keys that it has too."""
    *parents, last = path
    place: Any = raw
    for depth, key in enumerate(parents):
        if isinstance(place, list):
            place = place[_index(place, key, path)]
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise UserError(f"{'.'.join(parents[: depth + 1])} is {short(place)} and has no keys below it")
    if isinstance(place, list):
        place[_index(place, last, path)] = value
        return
    if path == ["task", "kind"] and value != place.get("kind"):
        allowed = _TASK_KEYS.get(value, set(place)) if isinstance(value, str) else set(place)
        for key in set(place) - allowed:
            del place[key]
    place[last] = value


def _index(place: list, key: str, path: list[str]) -> int:
    if not key.isdecimal() or int(key) >= len(place):
        raise UserError(f"{'.'.join(path)}: {key!r} is no position in a list of {len(place)}")
    return int(key)


_TASK_KEYS = {
    get_args(kind.model_fields["kind"].annotation)[0]: set(kind.model_fields) for kind in get_args(get_args(Task)[0])
}
