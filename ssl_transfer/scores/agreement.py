"""Agreement with the teacher."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import Layer, Measuring, ScoredImages, ScoreSection, layer_word, listed, score, words
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

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """Neighbor overlap, linear CKA and the rank correlation of distances; nothing without a teacher."""
        from ssl_transfer.probes import agreement

        teacher, seed = measuring.teacher, measuring.seed
        if teacher is None:
            return []
        found = agreement(features.features.test_x, teacher.features.test_x, k=self.k, seed=seed)
        settings = {"probe": "agreement", "split": "test", "metric": found.metric, "k": found.k, "seed": seed}
        settings |= {"teacher": teacher.name, "teacher_layer": teacher.protocol["layer"]}
        values = {
            f"overlap {self.k}": found.neighbor_overlap,
            "CKA": found.linear_cka,
            "Spearman": found.distance_spearman,
        }
        return [
            score(features, words(name, layer_word(features.layer)), value, settings) for name, value in values.items()
        ]
