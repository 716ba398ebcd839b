"""Weighted nearest neighbors in the training split."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from ssl_transfer.scores.base import (
    Effort,
    Measuring,
    Metric,
    ScoredImages,
    ScoreSection,
    listed,
    metric_word,
    score,
    words,
)
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Counts, Temperature, rule

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures

Temperatures = Annotated[tuple[Temperature, ...], Strict(False), Field(min_length=1)]
_PLAIN_TEMPERATURE = 0.1  # of a column that names none


class KNN(ScoreSection):
    """Weighted cosine nearest neighbors (Wu et al., CVPR 2018); a majority vote where ``weighted`` is off."""

    learned_from = "train"
    reads_training_features = True
    protocol_keys = ("metric", "k", "temperature", "vote")
    flags: ClassVar[dict[str, str]] = {"weighted": "--majority"}

    kind: Literal["knn"] = "knn"
    k: Counts = Field((20, 200), description="neighbors that vote")
    temperature: Temperature | Temperatures = Field(0.1, description="votes weigh exp(cosine / temperature)")
    metric: Metric = Field("cosine", description="euclidean is for a majority vote")
    weighted: bool = Field(True, description="off: every vote weighs one")

    @rule
    def _weights_are_of_cosines(self) -> Iterator[str]:
        if self.weighted and self.metric != "cosine":
            yield f"metric {self.metric} has no cosines to weigh votes by: set weighted: false"

    @property
    def _temperatures(self) -> list[float]:
        return [self.temperature] if isinstance(self.temperature, float | int) else list(self.temperature)

    def columns(self) -> list[str]:
        """``kNN 20``; a vote without weights has no temperature."""
        temperatures: list[float | None] = [*self._temperatures] if self.weighted else [None]
        return [self._column(k, temperature) for temperature in temperatures for k in sorted(set(self.k))]

    def _column(self, k: int, temperature: float | None) -> str:
        plain = temperature == _PLAIN_TEMPERATURE
        vote = "majority" if temperature is None else "" if plain else f"T {temperature:g}"
        return words(f"kNN {k}", vote, metric_word(self.metric))

    def check(self, images: ScoredImages) -> None:
        """Also that there are as many training images as neighbors."""
        from ssl_transfer.probes.checks import check_k

        super().check(images)
        check_k(max(self.k), len(images.train))

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """Who votes, and what a vote weighs."""
        vote = "one vote each"
        if protocol.get("vote") != "majority":
            vote = f"votes that weigh exp(cosine / {listed(protocol, 'temperature')})"
        near = "largest cosine" if protocol.get("metric", "cosine") == "cosine" else "smallest Euclidean distance"
        return f"The {listed(protocol, 'k')} training images of {near} to a test image decide its class, by {vote}."

    def seconds(self, effort: Effort) -> float:
        """Every test image is compared with every training image."""
        return 2 * effort.n_train * effort.n_test * effort.width * effort.multiply

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """Every pair of ``k`` and ``temperature``, from one search."""
        from ssl_transfer.probes import knn_accuracy

        table = features.features
        found = knn_accuracy(
            table.train_x,
            table.train_y,
            table.test_x,
            table.test_y,
            k=list(self.k),
            temperature=self._temperatures,
            metric=self.metric,
            weighted=self.weighted,
        )
        vote = "exp(cosine / temperature)" if self.weighted else "majority"
        shared = {"probe": "knn", "metric": self.metric, "vote": vote}
        return [
            score(features, self._column(k, t), accuracy, shared | {"k": k, "temperature": t})
            for (k, t), accuracy in found.items()
        ]
