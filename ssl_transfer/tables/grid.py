"""Every combination of the values given for a recipe's keys, and the run that belongs to each. Imports no torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ssl_transfer import config, runs
from ssl_transfer.config.schema import LONGEST_NAME
from ssl_transfer.errors import UserError
from ssl_transfer.section import suggest
from ssl_transfer.tables.methods import Settings, labels


@dataclass(frozen=True)
class Combination:
    """One choice of the swept values, and the recipe it makes; the recipe has the name of its run folder."""

    values: dict[str, str]
    recipe: config.Recipe

    @property
    def folder(self) -> Path:
        """Where its run is kept."""
        return runs.folder_of(self.recipe)[0]

    @property
    def done(self) -> bool:
        """Whether it is trained and has the scores that the recipe asks for."""
        return runs.is_complete(self.recipe, self.folder)


def plan(path: Path, overrides: Sequence[str], *, baseline: str | None = None) -> list[Combination]:
    """Every combination of the values that commas separate; those of the last key vary fastest.

    A comma within brackets, braces or quotes belongs to its value: ``data.augment.crop_scale=[0.1,1],[0.3,1]`` has two.

    Raises:
        UserError: with all problems of all combinations; also if none of them is the method called ``baseline``.
    """
    choices = [_choices(override) for override in overrides]
    swept = [key for key, values in choices if len(values) > 1]
    found: list[Combination] = []
    problems: dict[str, list[dict[str, str]]] = {}
    for picked in product(*([(key, value) for value in values] for key, values in choices)):
        values = {key: value for key, value in picked if key in swept and value is not None}
        try:
            recipe = config.load(path, [key if value is None else f"{key}={value}" for key, value in picked])
        except UserError as error:
            for problem in _problems(error):
                problems.setdefault(problem, []).append(values)
        else:
            found.append(Combination(values, recipe))
    lines = [_located(problem, places) for problem, places in problems.items()] or _unfit(found, baseline)
    if lines:
        raise UserError(config.told(path, lines))
    known = _known(Path(found[0].recipe.train.runs))
    return [_named(combination, known) for combination in found]


def _choices(override: str) -> tuple[str, list[str] | list[None]]:
    """The key of an override and its values; what is no override is left for config to refuse."""
    key, equals, values = override.partition("=")
    return (key, _split(values)) if equals else (override, [None])


def _split(text: str) -> list[str]:
    """``text`` cut at its commas, but for those within brackets, braces or quotes."""
    parts, depth, quote, before = [""], 0, "", ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and before in ("", *",[{:"):  # an apostrophe within a word is none
            quote = letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            before = ""
            continue
        parts[-1] += letter
        before = letter if letter != " " else before
    return parts


def _problems(error: UserError) -> list[str]:
    """What config tells of one recipe: a line each below a title, or a single sentence."""
    title, *lines = str(error).splitlines()
    return [line.strip() for line in lines] or [title]


def _located(problem: str, places: Sequence[Mapping[str, str]]) -> str:
    """A problem, with the values that all combinations which have it have in common."""
    shared = set.intersection(*(set(place.items()) for place in places))
    told = _told({key: value for key, value in places[0].items() if (key, value) in shared})
    return f"{problem} (with {told})" if told else problem


def _unfit(found: Sequence[Combination], baseline: str | None) -> list[str]:
    """What is wrong with valid recipes taken together."""
    lines = []
    first: dict[str, Combination] = {}
    for combination in found:
        twin = first.setdefault(config.identity_hash(combination.recipe), combination)
        if twin is not combination:
            lines.append(f"{_told(twin.values)} and {_told(combination.values)} are the same run; give a value once")
    if not all(runs.final_scores(combination.recipe) for combination in found):
        lines.append("score: names no score of the end, so there would be nothing to compare")
    methods = dict.fromkeys(labels([Settings.of(combination.recipe) for combination in found]))
    if baseline is not None and baseline not in methods:
        lines.append(f"there is no method {baseline!r} to compare with{suggest(baseline, methods)}")
    return lines


def _told(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def _known(folder: Path) -> dict[str, str]:
    """The names of the runs in ``folder`` by their identities; of two, the one that is further."""
    found = []
    for path in folder.glob("*/run.json"):
        try:
            info = runs.read_info(path.parent)
        except UserError:  # damaged: told when somebody wants that folder
            continue
        if info is not None:
            found.append((info.finished, info.steps, path.parent.name, info.identity))
    return {identity: name for _, _, name, identity in sorted(found)}


def _named(combination: Combination, known: Mapping[str, str]) -> Combination:
    """The combination under the name that its run has already, else ``digits-transfer-rkd-seed1`` after its values."""
    recipe, own = combination.recipe, config.identity_hash(combination.recipe)
    name = "-".join([recipe.name, *(_word(key, value) for key, value in combination.values.items())])
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - len(own) - 1]}-{own}"
    name = known.get(own, name)
    return Combination(combination.values, recipe.model_copy(update={"name": name}))


def _word(key: str, value: str) -> str:
    """A swept value as a part of a folder's name: ``rkd``, ``cifar_resnet8``, ``seed1``, ``teacher-seed1``."""
    last = key.rpartition(".")[2]
    whose = "teacher-" if ".teacher." in key else ""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", value).strip("_")
    speaks_for_itself = plain[:1].isalpha() and plain not in ("true", "false", "null")
    return whose + (plain if speaks_for_itself else f"{last}{plain}")
