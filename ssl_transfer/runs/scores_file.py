"""``scores.json``: the scores of a run, each with its protocol, and what is common to them. Loads no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from ssl_transfer.catalog.roles import Role
from ssl_transfer.errors import UserError
from ssl_transfer.files import read_json, verified, with_checksum, write_json
from ssl_transfer.scores.score import Score, ScoreTable
from ssl_transfer.section import reason

NAME = "scores.json"
_TIMES = ("date",)
_SCORES = TypeAdapter(list[Score])


@dataclass(frozen=True)
class RunScores:
    """The scores of a run; ``about`` is what they share: what was asked for, data, versions, the date."""

    scores: list[Score]
    about: dict[str, Any]

    @property
    def table(self) -> ScoreTable:
        """The scores, a row a model and a column a metric."""
        return ScoreTable(self.scores)


def write_scores(folder: Path, scores: Sequence[Score], about: Mapping[str, Any]) -> None:
    """Write the scores of the run in ``folder``."""
    write_json(folder / NAME, with_checksum(_content(scores, about), unchecked=_TIMES))


def as_read(scores: Sequence[Score], about: Mapping[str, Any]) -> RunScores:
    """What :func:`read_scores` gives for scores that :func:`write_scores` has written."""
    return _parsed(json.loads(json.dumps(_content(scores, about))))


def read_scores(folder: Path) -> RunScores | None:
    """The scores of the run in ``folder``, None where none were taken; also those of earlier versions.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / NAME
    try:
        return _parsed(verified(read_json(path), unchecked=_TIMES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({reason(error)}); write it again with ssl-transfer score {folder}"
        ) from None


def _content(scores: Sequence[Score], about: Mapping[str, Any]) -> dict[str, Any]:
    kept = ScoreTable(scores).kept
    retention = kept if len(kept) > 1 else next(iter(kept.values()), {})  # by teacher, where there are several
    return {**about, "retention": retention, "scores": [asdict(score) for score in scores]}


def _parsed(content: dict[str, Any]) -> RunScores:
    scores = _SCORES.validate_python([_with_role(score) for score in content.pop("scores")])
    content.pop("retention", None)
    return RunScores(scores, content)


def _with_role(score: dict[str, Any]) -> dict[str, Any]:
    """A score as it is written today: earlier versions told the role in the model's name, ``student (resnet18)``."""
    if "role" in score:
        return score
    role = score["model"].partition(" (")[0]
    return {**score, "role": role if role in get_args(Role) else "other"}
