"""Logistic regression on a few labeled images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict

from ssl_transfer.scores.base import Effort, Measuring, ScoredImages, ScoreSection, four, listed, score, words
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Count

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures

Fraction = Annotated[float, Field(gt=0, lt=1)]
_PLAIN_DRAWS = 10  # of a column that does not name them


class FewShot(ScoreSection):
    """Logistic regression on a few labels per class, or on a fraction of them, over several draws."""

    learned_from = "train"
    reads_training_features = True
    protocol_keys = ("normalization", "C", "labels", "labels_per_class", "fraction", "draws")

    kind: Literal["few_shot"] = "few_shot"
    labels_per_class: Annotated[tuple[Count, ...], Strict(False)] = Field((1, 10), description="labeled images of each")
    fractions: Annotated[tuple[Fraction, ...], Strict(False)] = Field((), description="of each class: 0.01 0.1")
    draws: Annotated[int, Field(ge=2, lt=2**31)] = Field(10, description="of the labeled images")

    @property
    def _amounts(self) -> list[int | float]:
        return [*self.labels_per_class, *self.fractions]

    def columns(self) -> list[str]:
        """``10/class`` or ``1 %``."""
        return [self._column(amount) for amount in self._amounts]

    def _column(self, amount: int | float) -> str:
        label = f"{100 * amount:g} %" if amount < 1 else f"{amount}/class"
        return words(label, "" if self.draws == _PLAIN_DRAWS else f"({self.draws} draws)")

    def check(self, images: ScoredImages) -> None:
        """Also that the smallest class has as many images."""
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.few_shot import images_per_class

        super().check(images)
        sizes = labels_of(images.train).unique(return_counts=True)[1]
        for amount in self._amounts:
            images_per_class(amount, sizes)

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """How few labels, and what learned from them."""
        amount = f"{listed(protocol, 'labels_per_class')} of each class"
        if "fraction" in protocol:
            amount = f"{100 * protocol['fraction']:g} % of each class"
        return (
            f"Logistic regression (C = {listed(protocol, 'C')}) on features that are centered and brought to length "
            f"one, from {listed(protocol, 'labels')} labeled training images, {amount}, drawn several times."
        )

    def seconds(self, effort: Effort) -> float:
        """A fit for each draw, on its labels alone, and its judgment of every test image."""
        labels = sum(amount * (effort.n_train if amount < 1 else effort.classes) for amount in self._amounts)
        judged = len(self._amounts) * effort.n_test
        return (500 * labels + judged) * self.draws * effort.width * effort.classes * effort.multiply

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """Mean and standard deviation over the draws, for every amount of labels."""
        from ssl_transfer.probes import few_shot

        found = few_shot(*four(features), labels_per_class=self._amounts, draws=self.draws, seed=measuring.seed)
        return [
            score(
                features,
                self._column(amount),
                result.mean,
                {
                    "probe": "few_shot",
                    "normalization": result.normalization,
                    "C": result.C,
                    "seed": measuring.seed,
                    "labels_per_class" if amount >= 1 else "fraction": amount,
                    "labels": result.labels,
                },
                sd=result.sd,
                n=result.draws,
            )
            for amount, result in found.items()
        ]
