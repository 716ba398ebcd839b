"""Retrieval among the test images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import (
    Effort,
    Layer,
    Measuring,
    Metric,
    ScoredImages,
    ScoreSection,
    layer_word,
    listed,
    metric_word,
    score,
    words,
)
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Counts

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures


class Retrieval(ScoreSection):
    """Recall@K, MAP@R and R-precision among the test images."""

    protocol_keys = ("metric", "split", "n_queries")

    kind: Literal["retrieval"] = "retrieval"
    k: Counts = Field((1, 2, 4, 8), description="depths of Recall@K")
    metric: Metric = Field("cosine", description="by which images are near")
    layer: Layer = "features"  # output: what the model gives, its head's embedding if it has a head

    def columns(self) -> list[str]:
        """``R@1``, ..., ``MAP@R`` and ``R-precision``, with metric and layer where they are not cosine and features."""
        return [self._column(name) for name in (*(f"R@{k}" for k in self.k), "MAP@R", "R-precision")]

    def _column(self, name: str, layer: str | None = None) -> str:
        return words(name, metric_word(self.metric), layer_word(layer or self.layer))

    def check(self, images: ScoredImages) -> None:
        """Also that there is something to find, and as many images as the largest depth."""
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.retrieval import images_to_find

        super().check(images)
        images_to_find(labels_of(images.test), k=self.k, queries=images.test.queries)

    @classmethod
    def took(cls, protocol: Mapping[str, Any]) -> bool:
        """Not of an epoch that was chosen by it."""
        return super().took(protocol) and "epoch_chosen_on" not in protocol

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """Who searches where."""
        return (
            f"Each of {listed(protocol, 'n_queries')} test images searches for images of its class among the other "
            f"test images, nearest first ({listed(protocol, 'metric')}). Recall@K: whether one is among the first K."
        )

    def seconds(self, effort: Effort) -> float:
        """Every test image is compared with every other."""
        return 3 * effort.n_test**2 * effort.width * effort.multiply

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """Each test image searched among all others, or the queries of a data set in its gallery."""
        from ssl_transfer.probes import retrieval

        x, y = features.features.test_x, features.features.test_y
        queries = None if features.images is None else features.images[1].queries
        found = retrieval(x, y, k=list(self.k), metric=self.metric, queries=queries)
        settings = {"probe": "retrieval", "metric": self.metric, "split": "test", "n_queries": found.n_queries}
        values = {f"R@{depth}": value for depth, value in found.recall.items()}
        values |= {"MAP@R": found.map_at_r, "R-precision": found.r_precision}
        return [score(features, self._column(name, features.layer), value, settings) for name, value in values.items()]
