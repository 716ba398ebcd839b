"""``suite.json``: the scores of models on many data sets, each with its protocol. Loads no torch."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ssl_transfer.catalog.roles import Role
from ssl_transfer.errors import UserError
from ssl_transfer.files import write_json
from ssl_transfer.scores.score import Score
from ssl_transfer.section import reason

FOLDER = "suite"  # of a run, where the suite of its model is kept unless told otherwise
NAME = "suite.json"
_BASELINES: tuple[Role, ...] = ("teacher", "untrained", "raw pixels")


@dataclass(frozen=True)
class SetRow:
    """A data set in the table of one probe: its metric, a score of each model, and what each kept of the teacher's."""

    dataset: str
    measure: str
    scores: list[Score | None]
    kept: list[float | None]


@dataclass(frozen=True)
class SuiteResults:
    """The scores of a suite. ``missing`` has the data sets that are not there, with how to get them; ``failed`` what
    could not be scored, with the reason; ``about`` what was asked for, versions and the date.

    The protocol of a score has the name of its data set as ``set`` and its metric as ``measure``.
    """

    scores: list[Score]
    missing: dict[str, str]
    failed: dict[str, str]
    about: dict[str, Any]

    @property
    def probes(self) -> list[str]:
        """A table each, in the order of the scores."""
        return list(dict.fromkeys(score.metric for score in self.scores))

    @property
    def models(self) -> list[tuple[str, Role]]:
        """The columns: the teacher, the models, then what they are seen beside."""
        found = dict.fromkeys((score.model, score.role) for score in self.scores)
        return sorted(found, key=lambda model: (model[1] != "teacher", model[1] in _BASELINES))

    @property
    def compared(self) -> list[str]:
        """The models that may have kept something of a teacher; none where there is no teacher."""
        if all(role != "teacher" for _, role in self.models):
            return []
        return [name for name, role in self.models if role not in _BASELINES]

    def rows(self, probe: str) -> list[SetRow]:
        """The data sets of a probe, in the order of the scores."""
        own = [score for score in self.scores if score.metric == probe]
        return [self._row([score for score in own if score.protocol["set"] == name]) for name in _sets(own)]

    def _row(self, own: Sequence[Score]) -> SetRow:
        by_model = {score.model: score for score in own}
        scores = [by_model.get(name) for name, _ in self.models]
        teacher = next((score.value for score in own if score.role == "teacher"), 0.0)
        kept = [by_model[name].value / teacher if teacher and name in by_model else None for name in self.compared]
        return SetRow(own[0].protocol["set"], own[0].protocol["measure"], scores, kept)

    def mean(self, probe: str) -> tuple[list[float | None], list[float | None]]:
        """The mean over the data sets of each model's scores and of what it kept, None where one is lacking."""
        rows = self.rows(probe)
        scores = [_mean([None if score is None else score.value for score in column]) for column in _columns(rows)]
        kept = [_mean([row.kept[place] for row in rows]) for place in range(len(self.compared))]
        return scores, kept


def _sets(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(score.protocol["set"] for score in scores))


def _columns(rows: Sequence[SetRow]) -> list[list[Score | None]]:
    return [list(column) for column in zip(*(row.scores for row in rows), strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def write_suite(folder: Path, results: SuiteResults) -> Path:
    """Write ``suite.json`` into ``folder`` and return its path."""
    kept = {
        probe: {row.dataset: dict(zip(results.compared, row.kept, strict=True)) for row in results.rows(probe)}
        for probe in results.probes
        if results.compared
    }
    content = {**results.about, "missing": results.missing, "failed": results.failed, "retention": kept}
    write_json(folder / NAME, {**content, "scores": [asdict(score) for score in results.scores]})
    return folder / NAME


def read_suite(folder: Path) -> SuiteResults | None:
    """What :func:`write_suite` wrote into ``folder``, None where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scores = TypeAdapter(list[Score]).validate_python(content.pop("scores"))
        missing, failed, _ = (content.pop(key) for key in ("missing", "failed", "retention"))
        return SuiteResults(scores, missing, failed, content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); remove it and run the suite again") from None
