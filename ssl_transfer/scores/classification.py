"""The trained classifier itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import Measuring, ScoredImages, ScoreSection, listed, score, words
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Count

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures

_PLAIN_BINS = 15  # of a column that does not name them


class Classification(ScoreSection):
    """The trained classifier itself on the test images: top-1, top-5 and expected calibration error."""

    learned_from = "training"
    needs_classifier = True
    protocol_keys = ("split", "bins")

    kind: Literal["classification"] = "classification"
    bins: Count = Field(15, description="of confidence, for the calibration error")

    @property
    def scored_layer(self) -> str:
        """What the model gives."""
        return "output"

    def columns(self) -> list[str]:
        """``top-1``, ``top-5`` and ``ECE``, of 15 bins where it says nothing else."""
        return ["top-1", "top-5", words("ECE", "" if self.bins == _PLAIN_BINS else f"({self.bins} bins)")]

    def check(self, images: ScoredImages) -> None:
        """Also that the classifier knows the classes of the test images."""
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.classification import check_known

        super().check(images)
        if images.classes is not None:
            check_known(labels_of(images.test), images.classes)

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """What the classifier is asked."""
        return (
            "The run's own classifier on the test images, after the last epoch. ECE, the expected calibration error, "
            f"is over {listed(protocol, 'bins')} bins of confidence, and better when it is smaller."
        )

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """Nothing of a model without a classifier, or with one of another number of classes than the run's."""
        from ssl_transfer.models import ClassifierHead
        from ssl_transfer.probes import classification

        head = getattr(features.network, "head", None)
        if not isinstance(head, ClassifierHead) or measuring.classes not in (None, head.embedding_dim):
            return []
        found = classification(features.held.test_x, features.held.test_y, bins=self.bins)
        settings = {"probe": "classification", "split": "test", "epoch": "last", "bins": self.bins}
        values = (found.top1, found.top5, found.calibration_error)
        return [score(features, name, value, settings) for name, value in zip(self.columns(), values, strict=True)]
