"""The attentive probe: whether it is the pooling of a network's features that loses."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import Effort, Measuring, ScoredImages, ScoreSection, facts, listed, score, words
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Count

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures

_PLAIN_QUERIES = 4  # of a column that names none


class AttentiveProbe(ScoreSection):
    """A linear classifier of a frozen network's patches or last feature map, pooled by learned attention.

    Beside the linear probe it says what pooling loses. The tokens of all images are held in memory.
    """

    learned_from = "train"
    protocol_keys = ("queries", "epochs", "n_held_out", "tokens")

    probe = "attentive"
    kind: Literal["attentive_probe"] = "attentive_probe"
    epochs: Count = Field(10, description="of each classifier")
    queries: Count = Field(4, description="that attend, each for its part of the channels")

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """What attends, and how its rate was chosen."""
        return (
            f"A linear classifier of tokens pooled by {listed(protocol, 'queries')} learned queries, trained for "
            f"{listed(protocol, 'epochs')} epochs with the learning rate that did best on "
            f"{listed(protocol, 'n_held_out')} held-out training images; the network stays frozen."
        )

    def columns(self) -> list[str]:
        """``attentive 10 ep``; another number of queries shows."""
        other = "" if self.queries == _PLAIN_QUERIES else f"{self.queries} queries"
        return [words(f"attentive {self.epochs} ep", other)]

    def check(self, images: ScoredImages) -> None:
        """Also that some class has an image to hold out."""
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.linear import refuse_single_images
        from ssl_transfer.probes.splits import held_out_tenth

        super().check(images)
        refuse_single_images(held_out_tenth(labels_of(images.train), seed=0))

    def seconds(self, effort: Effort) -> float:
        """The network sees all images once more; the classifiers cost about as much again."""
        return 2 * (effort.n_train + effort.n_test) * effort.image

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """One score; none of raw pixels, which no network pools."""
        from ssl_transfer import probes
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.features.tokens import split_tokens

        if features.role == "raw pixels":
            return []
        train, test = split_tokens(features)
        assert features.images is not None
        train_y, test_y = (labels_of(images) for images in features.images)
        result = probes.attentive_probe(
            train, train_y, test, test_y, epochs=self.epochs, queries=self.queries, seed=measuring.seed
        )
        (column,) = self.columns()
        settings = {"probe": "attentive", "at_grid_edge": result.at_grid_edge, **facts(result), "layer": "last map"}
        return [score(features, column, result.accuracy, settings)]
