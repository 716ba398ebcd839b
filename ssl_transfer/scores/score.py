"""One number with its protocol, and what follows from several of them. Loads no torch: reports are made from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_transfer.catalog.roles import Role


@dataclass(frozen=True)
class Score:
    """One number: whose, which, and how it was taken. Accuracies are fractions of the test split.

    ``model`` is what tables call the model, ``metric`` the column that the number belongs to.
    """

    model: str
    role: Role
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
        if self.n is None:
            return None
        return f"{self.n} folds" if "folds" in self.protocol else f"{self.n} draws of labels"


@dataclass(frozen=True)
class ScoreTable:
    """Scores as a person reads them: a row a model, a column a metric, and what the student kept of its teacher."""

    scores: Sequence[Score]

    @property
    def models(self) -> list[str]:
        """The rows, in the order of the scores."""
        return list(dict.fromkeys(score.model for score in self.scores))

    @property
    def metrics(self) -> list[str]:
        """The columns, in the order of the scores."""
        return list(dict.fromkeys(score.metric for score in self.scores))

    def role(self, model: str) -> Role:
        """The role of a row."""
        return next(score.role for score in self.scores if score.model == model)

    def row(self, model: str) -> list[Score | None]:
        """The scores of a model, None where a metric was not taken of it."""
        own = {score.metric: score for score in self.scores if score.model == model}
        return [own.get(metric) for metric in self.metrics]

    @property
    def kept(self) -> dict[str, dict[str, float]]:
        """The share of its teacher's score that the student has, by column, for each teacher by what it is called.

        Empty without a teacher; without the columns in which a teacher has 0, and calibration error, which is better
        when it is smaller.
        """
        student = {score.metric: score.value for score in self.scores if score.role == "student"}
        kept: dict[str, dict[str, float]] = {}
        for score in self.scores:
            if score.role == "teacher" and score.metric in student and score.value > 0 and score.metric[:3] != "ECE":
                shares = kept.setdefault(score.model.partition(" (")[0], {})
                shares[score.metric] = student[score.metric] / score.value
        return kept

    @property
    def tested_on(self) -> str:
        """``10,000 test images``, or ``5,000 test images (held out of train)``; of the most, where scores differ."""
        tested = ((score.protocol.get("n_test", 0), score.protocol.get("test_split", "test")) for score in self.scores)
        count, split = max(tested)
        return f"{count:,} test images" + ("" if split == "test" else f" ({split})")

    @property
    def repeated(self) -> str:
        """What the standard deviations are over, empty where there are none."""
        return " or ".join(dict.fromkeys(score.repeated for score in self.scores if score.repeated is not None))
