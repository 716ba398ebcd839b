"""From a YAML file and overrides to a recipe, with every problem told at once."""

import copy
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ssl_transfer.config.schema import Recipe
from ssl_transfer.errors import UserError
from ssl_transfer.scores import KINDS
from ssl_transfer.section import Section, first_line, short, suggest
from ssl_transfer.tasks.sections import Task


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, defaults written out; what is left out is null, that is: off, or taken from its context."""
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, width=110)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, complete and validate a recipe.

    Raises:
        UserError: with every problem of the file and of the overrides.
    """
    path = Path(path)
    return _validated(_complete(_read(path), path.parent), path, overrides)


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
    recipe = _validated(_complete(raw, path.parent), path, overrides)
    if recipe.teacher is None:
        raise UserError(f"{path} has no teacher: give a recipe with task.teacher, or a file with teacher and data")
    return recipe


def _validated(raw: dict[str, Any], path: Path, overrides: Sequence[str]) -> Recipe:
    problems = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            problems.append(f"{override!r} is not an override; write key.path=value, for example train.epochs=5")
            continue
        try:
            _assign(raw, key.split("."), yaml.load(value, Loader=Loader))
        except (yaml.YAMLError, UserError) as error:
            problems.append(f"{override!r} cannot be applied: {first_line(error)}")
        raw = _complete(raw, path.parent)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        problems += [sentence(detail) for detail in error.errors()]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError(f"{path}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))
    return recipe


class Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: ``3e-2`` is a number, ``no`` is a word, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A mapping without a key given twice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "timestamp")}
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF"))
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+\.\d*|\d+(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+.0123456789"),
)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = difflib.get_close_matches(str(path), [str(file) for file in Path("recipes").rglob("*.yaml")], n=1)
        raise UserError(f"there is no recipe {path}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        raw = yaml.load(path.read_text(), Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # control characters are a ReaderError without a mark
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not readable as YAML: {first_line(error)}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    return raw


_WHERE = {"data": ("root", "download", "workers"), "train": ("runs", "cpu_threads", "tracker")}


def _complete(raw: dict[str, Any], folder: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Write out what may be written short: an augmentation's preset, a teacher's recipe by its path.

    The teacher looks for data and runs where the student does, so one override moves both. ``above`` are the files that
    led here, each naming the next.
    """
    data, task = raw.get("data"), raw.get("task")
    if isinstance(data, dict) and isinstance(data.get("augment"), str):
        data["augment"] = {"preset": data["augment"]}
    teacher = task.get("teacher") if isinstance(task, dict) else None
    if not isinstance(teacher, dict):
        return raw
    if isinstance(teacher.get("recipe"), str):
        path = folder / teacher["recipe"]
        if path.resolve() in above:
            raise UserError(f"{path} names itself as its teacher, or as that of its teacher: name another recipe")
        teacher["recipe"] = _complete(_read(path), path.parent, (*above, path.resolve()))
    recipe = teacher.get("recipe")
    if isinstance(recipe, dict):
        for section, keys in _WHERE.items():
            student, own = raw.get(section), recipe.get(section)
            if isinstance(student, dict) and isinstance(own, dict):
                own.update({key: student[key] for key in keys if key in student})
    return raw


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
        allowed = _TASK_KEYS.get(value, set(place))
        for key in set(place) - allowed:
            del place[key]
    place[last] = copy.deepcopy(value)


def _index(place: list, key: str, path: list[str]) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise UserError(f"{'.'.join(path)}: {key!r} is no position in a list of {len(place)}")
    return int(key)


_TASK_KEYS = {
    get_args(kind.model_fields["kind"].annotation)[0]: set(kind.model_fields) for kind in get_args(get_args(Task)[0])
}


def sentence(detail: Any, model: type[Section] = Recipe) -> str:
    """One problem that pydantic found in a section, in our words: where, what was given, what is allowed."""
    place = [part for part in detail["loc"] if part not in _TAGS]
    path = ".".join(map(str, place))
    given, kind, context = detail.get("input"), detail["type"], detail.get("ctx", {})
    tell: dict[str, Callable[[], str]] = {
        "missing": lambda: "is missing",
        "extra_forbidden": lambda: f"is no key here{suggest(place[-1], _fields(detail['loc'], model))}",
        "literal_error": lambda: f"cannot be {short(given)}{suggest(given, _quoted(context['expected']))}",
        "union_tag_invalid": lambda: (
            f"kind cannot be {context['tag']!r}{suggest(context['tag'], _quoted(context['expected_tags']))}"
        ),
        "union_tag_not_found": lambda: "has no kind",
        "value_error": lambda: ("" if isinstance(given, dict) else f"{short(given)}: ") + str(context["error"]),
        "string_pattern_mismatch": lambda: f"cannot be {short(given)}: use letters, digits, '.', '_' and '-'",
    }
    words = tell.get(kind, lambda: f"cannot be {short(given)}: {detail['msg'][0].lower()}{detail['msg'][1:]}")()
    return f"{path}: {words}" if path else words


def _fields(location: tuple, model: Any) -> list[str]:
    """The keys allowed where pydantic met an unknown one, found by walking the schema along the location."""
    for part in location[:-1]:
        if part in _TAGS:
            model = _TAGS[part]
        elif isinstance(part, str) and part in model.model_fields:
            found = _sections(model.model_fields[part].annotation)
            model = found[0] if found else model
    return list(model.model_fields)


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _sections(inner)]


_TAGS: dict[Any, type[Section]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in (*get_args(get_args(Task)[0]), *KINDS)
}


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)
