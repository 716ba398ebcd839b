"""A number with its protocol, and the file of them that a run keeps. Loads no torch: reports are written from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.files import write_json


@dataclass(frozen=True)
class Score:
    """One number: whose, which, and how it was taken. Accuracies are fractions of the test split."""

    model: str
    metric: str
    value: float
    protocol: dict[str, Any]
    sd: float | None = None  # over draws or folds, where there are several
    n: int | None = None

    @property
    def percent(self) -> str:
        """``56.9``, with ``± 1.2`` where there is a standard deviation."""
        return f"{100 * self.value:.1f}" + ("" if self.sd is None else f" ± {100 * self.sd:.1f}")

    @property
    def repeated(self) -> str | None:
        """What the standard deviation is over: ``10 draws of labels``, or ``10 folds``."""
        return (
            None if self.n is None else f"{self.n} folds" if "folds" in self.protocol else f"{self.n} draws of labels"
        )


def write_scores(path: Path, scores: Sequence[Score], context: Mapping[str, Any]) -> None:
    """Write ``scores.json``: what is common to all scores, then each with its protocol."""
    write_json(path, {**context, "retention": kept(scores), "scores": [asdict(score) for score in scores]})


def read_scores(path: Path) -> list[Score] | None:
    """The scores in ``path``, or None where it is missing or damaged."""
    try:
        return [Score(**score) for score in json.loads(path.read_text())["scores"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tested_on(scores: Sequence[Score]) -> str:
    """``10,000 test images``, or ``5,000 test images (held out of train)``; of the most, where scores differ in it."""
    count, split = max((score.protocol.get("n_test", 0), score.protocol.get("test_split", "test")) for score in scores)
    return f"{count:,} test images" + ("" if split == "test" else f" ({split})")


def kept(scores: Sequence[Score]) -> dict[str, float]:
    """How much of its teacher's score the student has, by column; empty where there is no teacher."""
    names = {role: score.model for score in scores for role in ("student", "teacher") if score.model.startswith(role)}
    return retention(scores, **names) if len(names) == 2 else {}


def retention(scores: Sequence[Score], student: str, teacher: str) -> dict[str, float]:
    """The share of the teacher's score that the student has, by column, where the teacher's is above zero."""
    from ssl_transfer import probes  # loads torch

    ours, theirs = (
        {score.metric: score.value for score in scores if score.model == name} for name in (student, teacher)
    )
    return {
        metric: probes.retention(ours[metric], value)
        for metric, value in theirs.items()
        if metric in ours and value > 0 and not metric.startswith("ECE")  # an error, better when it is smaller
    }
