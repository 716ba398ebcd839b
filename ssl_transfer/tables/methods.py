"""What runs are called beside each other: by the settings in which they differ, seeds left aside. Imports no torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_transfer import config


class Settings(dict[str, Any]):
    """What decides a run's weights, as dotted keys with plain values."""

    @classmethod
    def of(cls, recipe: config.Recipe) -> "Settings":
        """All settings of ``recipe`` that are part of its identity, those of its teachers and their number included."""
        count = len(recipe.teachers)
        return cls({**dict(_flat(config.identity(recipe))), **({"task.teachers": count} if count > 1 else {})})

    def seeds(self) -> "Settings":
        """The seeds of the run and of its teacher."""
        return Settings({key: value for key, value in self.items() if _is_seed(key)})

    def without_seeds(self) -> "Settings":
        """What is left when seeds are left aside: the method."""
        return Settings({key: value for key, value in self.items() if not _is_seed(key)})

    def below(self, prefix: str) -> "Settings":
        """Those of one part, such as ``task.teacher.``."""
        return Settings({key: value for key, value in self.items() if key.startswith(prefix)})

    def name(self) -> str:
        """One text for equal settings."""
        return json.dumps(self, sort_keys=True)


def labels(found: Sequence[Settings]) -> list[str]:
    """What to call each run's method: its kind of task, and as many more settings as it takes to tell all apart.

    Runs that differ in seeds alone get equal labels, and only they do.
    """
    methods = [settings.without_seeds() for settings in found]
    counts = {method.get("task.teachers", 1) for method in methods}
    shown = ["task.kind", *(["task.teachers"] if len(counts) > 1 else [])]  # one and one of several share no key
    while True:
        names = [_label(method, shown) for method in methods]
        first: dict[str, Settings] = {}
        for name, method in zip(names, methods, strict=True):
            known = first.setdefault(name, method)
            if known != method:
                shown += sorted(key for key in {*known, *method} if known.get(key) != method.get(key))
                break
        else:
            return names


def _label(method: Mapping[str, Any], shown: Sequence[str]) -> str:
    kind, *others = shown
    # Not every method has every setting, such as a loss without sigma.
    given = (f"{key.removeprefix('task.')}={method[key]}" for key in others if key in method)
    return " ".join([method[kind], *given])


def _flat(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):  # several teachers
            yield from _flat(dict(zip(map(str, range(len(value))), value, strict=True)), f"{path}{key}.")
        else:
            yield f"{path}{key}", json.dumps(value) if isinstance(value, list) else value


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"
