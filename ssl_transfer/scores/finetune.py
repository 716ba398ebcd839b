"""Fine-tuning on a fraction of the labels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import Effort, Measuring, ScoredImages, ScoreSection, facts, listed, score, words
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Count, Preset

if TYPE_CHECKING:
    from ssl_transfer.features.model_features import ModelFeatures

_PLAIN_BATCH_SIZE = 256  # of a column that names none


class Finetune(ScoreSection):
    """The whole network trained on a fraction of the labels."""

    learned_from = "train"
    protocol_keys = ("fraction", "epochs", "batch_size", "augment")

    kind: Literal["finetune"] = "finetune"
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="of each class that is labeled")
    epochs: Count = Field(30, description="over the labeled images")
    batch_size: Count = Field(256, description="labeled images in a step, or all of them if they are fewer")
    augment: Preset = Field("crop", description="the preset of views that are trained on")

    @property
    def needs_all_processes(self) -> bool:
        """Every process trains its copy."""
        return True

    def columns(self) -> list[str]:
        """``fine-tuned 10 % 30 ep``, in batches of 256 where it says nothing else."""
        name = f"fine-tuned {100 * self.fraction:g} % {self.epochs} ep"
        return [words(name, "" if self.batch_size == _PLAIN_BATCH_SIZE else f"batch {self.batch_size}")]

    def check(self, images: ScoredImages) -> None:
        """Also that the images will be held in memory."""
        from ssl_transfer.data.sources.materialize import are_held
        from ssl_transfer.features.augmented import refuse_streamed

        super().check(images)
        for split in (images.train, images.test):
            if not split.resident and not are_held(len(split), split.pixels.shape[-1], images.resident):
                refuse_streamed(split)

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """What was trained on how many labels."""
        share = f"{100 * protocol['fraction']:g} % of the labels" if "fraction" in protocol else "some labels"
        return (
            f"The whole network with a new classifier, trained on {share} for {listed(protocol, 'epochs')} epochs with "
            f"augmented views ({listed(protocol, 'augment')}); scored after the last step."
        )

    def seconds(self, effort: Effort) -> float:
        """A step forward and back costs about three times the features."""
        return (3 * self.epochs * self.fraction * effort.n_train + effort.n_test) * effort.image

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """The accuracy of a copy of the network after its last step."""
        from ssl_transfer.features.augmented import augmentation, held_pixels, trainable
        from ssl_transfer.features.extraction import computing_in
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes import finetune

        network, train, test = trainable(features)
        result = finetune(
            network,
            held_pixels(train),
            labels_of(train),
            held_pixels(test),
            labels_of(test),
            augment=augmentation(self.augment, train, seed=measuring.seed),
            fraction=self.fraction,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=measuring.seed,
            autocast=lambda: computing_in(features.precision, train),
        )
        (column,) = self.columns()
        settings = {"probe": "finetune", "precision": features.precision, "fraction": self.fraction}
        settings |= {"augment": self.augment, **facts(result)}
        return [score(features, column, result.accuracy, settings)]
