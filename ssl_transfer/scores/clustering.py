"""Clusters of the test images."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import (
    Effort,
    Layer,
    Measuring,
    Metric,
    ScoreSection,
    layer_word,
    listed,
    metric_word,
    score,
    words,
)
from ssl_transfer.scores.score import Score

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures


class Clustering(ScoreSection):
    """Mutual information of k-means clusters of the test images and their classes."""

    protocol_keys = ("metric", "split", "normalization", "n_clusters", "restarts")

    kind: Literal["clustering"] = "clustering"
    metric: Metric = Field("cosine", description="cosine: rows of norm one")
    layer: Layer = "features"  # output: what the model gives, its head's embedding if it has a head

    def columns(self) -> list[str]:
        """``NMI`` and ``AMI``, with metric and layer where they are not cosine and features."""
        return [self._column(name, self.layer) for name in ("NMI", "AMI")]

    def _column(self, name: str, layer: str) -> str:
        return words(name, metric_word(self.metric), layer_word(layer))

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """What the clusters are, and what they are compared with."""
        return (
            f"Mutual information of the classes of the test images and {listed(protocol, 'n_clusters')} clusters of "
            f"them, the best of {listed(protocol, 'restarts')} runs of k-means; NMI is normalized, AMI corrected for "
            "chance."
        )

    def seconds(self, effort: Effort) -> float:
        """Every step of k-means, from every start, compares the test images with the centers."""
        return 1200 * effort.n_test * effort.width * effort.classes * effort.multiply

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """As many clusters as there are classes."""
        from ssl_transfer.probes import clustering

        table, seed = features.held, measuring.seed
        found = clustering(table.test_x, table.test_y, metric=self.metric, seed=seed)
        settings = {
            "probe": "clustering",
            "split": "test",
            "metric": self.metric,
            "n_clusters": found.n_clusters,
            "normalization": found.normalization,
            "restarts": found.restarts,
            "seed": seed,
        }
        values = {"NMI": found.nmi, "AMI": found.ami}
        return [score(features, self._column(name, features.layer), value, settings) for name, value in values.items()]
