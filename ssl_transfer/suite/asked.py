"""What a suite is asked for, checked before anything is loaded. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_transfer import config
from ssl_transfer.catalog.benchmarks import BENCHMARKS, SUITES
from ssl_transfer.errors import UserError
from ssl_transfer.runs.suite_file import FOLDER
from ssl_transfer.section import reason, suggest
from ssl_transfer.teachers.section import Teacher, named_teacher

PROBES = ("linear", "knn", "attentive")


@dataclass(frozen=True)
class Asked:
    """Models, data sets, where those lie, by what they are scored, and where results go.

    Raises:
        UserError: there is no such data set or probe.
        ValueError, FileNotFoundError: a word is no model.
    """

    models: tuple[str, ...]
    on: tuple[str, ...]
    teacher: str | None = None
    root: Path = Path("data")
    out: Path | None = None
    probes: tuple[str, ...] = ("linear", "knn")
    images: int | None = None
    baselines: bool = True
    download: bool = False

    def __post_init__(self) -> None:
        for probe in self.probes:
            if probe not in PROBES:
                raise UserError(f"there is no probe {probe!r}{suggest(probe, PROBES)}")
        asked_for(self.on)
        for word in (*self.models, *filter(None, [self.teacher])):
            model_section(word)

    @property
    def folder(self) -> Path:
        """Where results go: unless told otherwise into the first model's run, or else into ``suite``."""
        first = Path(self.models[0])
        return self.out or (first / FOLDER if (first / "run.json").is_file() else Path(FOLDER))


def asked_for(on: Sequence[str]) -> list[str]:
    """The names of the data sets that ``--on`` names: suites, data sets and folders, in their order, each once.

    Raises:
        UserError: one is none of these.
    """
    names: list[str] = []
    for word in (part for given in on for part in given.split(",") if part):
        if word in SUITES:
            names += SUITES[word]
        elif word in BENCHMARKS or Path(word).is_dir():
            names.append(word)
        else:
            raise UserError(
                f"there is no data set or folder {word!r} to score on{suggest(word, [*SUITES, *BENCHMARKS])}"
            )
    if not names:
        raise UserError(f"name what to score on with --on: {', '.join(SUITES)}, data sets or folders of images")
    return list(dict.fromkeys(names))


def model_section(word: str) -> Teacher:
    """Where a model comes from: by a word of :func:`named_teacher`, or by the keys of a ``task.teacher`` in braces.

    Raises:
        UserError: the keys are none.
        ValueError, FileNotFoundError: the word names no model.
    """
    if not word.lstrip().startswith("{"):
        return named_teacher(word)
    keys = config.parse(word)
    if not isinstance(keys, dict):
        raise UserError(
            f"{word} is no model: in braces write keys of task.teacher, such as {{file: x.pth, backbone: resnet18}}"
        )
    try:
        return Teacher(**keys)
    except ValueError as error:
        raise UserError(f"{word}: {reason(error).removeprefix('Value error, ')}") from None
