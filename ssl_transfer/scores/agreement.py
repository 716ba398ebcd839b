"""Agreement with the teacher."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.catalog.roles import teacher_word
from ssl_transfer.scores.base import (
    Effort,
    Layer,
    Measuring,
    ScoredImages,
    ScoreSection,
    layer_word,
    listed,
    score,
    words,
)
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Count

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures


class Agreement(ScoreSection):
    """How much of the teacher's geometry a model has, on the test images and without labels."""

    needs_teacher = True
    needs_test_labels = False
    protocol_keys = ("metric", "split", "k", "teacher_layer")

    kind: Literal["agreement"] = "agreement"
    k: Count = Field(10, description="neighbors that are compared")
    layer: Layer = "features"  # output: what the model gives, its head's embedding if it has a head

    def columns(self) -> list[str]:
        """``overlap 10``, ``CKA`` and ``Spearman``, with the layer where it is not the features."""
        return [words(name, layer_word(self.layer)) for name in (f"overlap {self.k}", "CKA", "Spearman")]

    def check(self, images: ScoredImages) -> None:
        """Also that there are more test images than neighbors; nothing where there is no teacher."""
        from ssl_transfer.probes.checks import check_k

        super().check(images)
        if images.teacher:
            check_k(self.k, len(images.test) - 1)

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """What is compared with the teacher."""
        return (
            f"How alike the model and {listed(protocol, 'teacher')} see the test images, without labels. Overlap: the "
            f"share of an image's {listed(protocol, 'k')} nearest others that both have. CKA: linear centered kernel "
            "alignment. Spearman: the rank correlation of all distances."
        )

    def seconds(self, effort: Effort) -> float:
        """Every test image is compared with every other, by student and by teacher, and the distances are ranked."""
        return 20 * effort.n_test**2 * effort.width * effort.multiply

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """Neighbor overlap, linear CKA and the rank correlation of distances, with each teacher."""
        from ssl_transfer.probes import agreement

        teachers, seed = measuring.teachers, measuring.seed
        scores = []
        for place, teacher in enumerate(teachers):
            found = agreement(features.held.test_x, teacher.held.test_x, k=self.k, seed=seed)
            settings = {"probe": "agreement", "split": "test", "metric": found.metric, "k": found.k, "seed": seed}
            settings |= {"teacher": teacher.name, "teacher_layer": teacher.protocol["layer"]}
            which = f"with {teacher_word(place, len(teachers))}" if len(teachers) > 1 else ""
            values = (found.neighbor_overlap, found.linear_cka, found.distance_spearman)
            scores += [
                score(features, words(column, which), value, settings)
                for column, value in zip(self.columns(), values, strict=True)
            ]
        return scores
