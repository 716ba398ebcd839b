"""``score``: how a trained model is judged beside its teacher."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from ssl_transfer.config.data import Preset
from ssl_transfer.config.fields import Count, Counts, Positive, Section
from ssl_transfer.scoring import columns

Fraction = Annotated[float, Field(gt=0, lt=1)]
Metric = Literal["cosine", "euclidean"]
Layer = Literal["features", "output"]  # output: what the model gives, its head's embedding if it has a head


class KNN(Section):
    """Weighted cosine nearest neighbors (Wu et al., CVPR 2018); a majority vote where ``weighted`` is off."""

    kind: Literal["knn"]
    k: Counts = (20, 200)
    temperature: Positive = 0.1
    weighted: bool = True

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        return [columns.knn(k, self.temperature if self.weighted else None, "cosine") for k in self.k]


class LinearProbe(Section):
    """A linear classifier on frozen features: fitted exactly, or trained by SGD on them or on augmented images."""

    kind: Literal["linear_probe"]
    protocol: Literal["lbfgs", "sgd", "augmented"] = "lbfgs"
    epochs: Count = 10  # of the two protocols trained by SGD
    augment: Preset = "crop"  # of the protocol augmented
    folds: bool = False  # one probe for each predefined fold of stl10's training split: mean and sd

    def columns(self) -> list[str]:
        """The column that this entry fills."""
        return [columns.linear_probe(self.protocol, self.epochs, self.folds)]


class FewShot(Section):
    """Logistic regression on a few labels per class, or on a fraction of them, over several draws."""

    kind: Literal["few_shot"]
    labels_per_class: Annotated[tuple[Count, ...], Strict(False)] = (1, 10)
    fractions: Annotated[tuple[Fraction, ...], Strict(False)] = ()
    draws: Annotated[int, Field(ge=2)] = 10

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        return [columns.few_shot(amount, self.draws) for amount in (*self.labels_per_class, *self.fractions)]


class Finetune(Section):
    """The whole network trained on a fraction of the labels."""

    kind: Literal["finetune"]
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    epochs: Count = 30
    batch_size: Count = 256
    augment: Preset = "crop"

    def columns(self) -> list[str]:
        """The column that this entry fills."""
        return [columns.finetune(self.fraction, self.epochs, self.batch_size)]


class Retrieval(Section):
    """Recall@K, MAP@R and R-precision among the test images."""

    kind: Literal["retrieval"]
    k: Counts = (1, 2, 4, 8)
    metric: Metric = "cosine"
    layer: Layer = "features"

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        names = [*(f"R@{k}" for k in self.k), "MAP@R", "R-precision"]
        return [columns.on_test_images(name, self.metric, self.layer) for name in names]


class Clustering(Section):
    """Mutual information of k-means clusters of the test images and their classes."""

    kind: Literal["clustering"]
    metric: Metric = "cosine"
    layer: Layer = "features"

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        return [columns.on_test_images(name, self.metric, self.layer) for name in ("NMI", "AMI")]


class Agreement(Section):
    """How much of the teacher's geometry a model has, on the test images and without labels."""

    kind: Literal["agreement"]
    k: Count = 10
    layer: Layer = "features"

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        names = (f"overlap {self.k}", "CKA", "Spearman")
        return [columns.on_test_images(name, "cosine", self.layer) for name in names]


class Classification(Section):
    """The trained classifier itself on the test images: top-1, top-5 and expected calibration error."""

    kind: Literal["classification"]
    bins: Count = 15  # of confidence, for the calibration error

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        return columns.classification(self.bins)


class Monitor(Section):
    """Figures of the training images, taken every so many epochs while the model trains; no score of the end."""

    kind: Literal["monitor"]
    every: Count  # epochs
    images: Annotated[int, Field(ge=2)] = 5000
    k: Count = 20

    def columns(self) -> list[str]:
        """None: what it finds stands in metrics.jsonl."""
        return []


class BestOnTest(Section):
    """Recall@K of the epoch that was best at the first K on the test split, for tables that choose so; no fair score.

    Euclidean and not normalized, in what the model gives. It is measured while the model trains.
    """

    kind: Literal["best_on_test"]
    k: Counts = (1, 2, 4, 8)
    every: Count = 1  # epochs

    def columns(self) -> list[str]:
        """The columns that this entry fills."""
        return [columns.best_on_test(k) for k in self.k]


Score = Annotated[
    KNN | LinearProbe | FewShot | Finetune | Retrieval | Clustering | Agreement | Classification | Monitor | BestOnTest,
    Field(discriminator="kind"),
]

# What learns from the labels of training images before it is scored on the test images.
LEARNING = (KNN, LinearProbe, FewShot, Finetune)


def _differ(scores: Sequence[Score]) -> Sequence[Score]:
    twice = [name for name, count in Counter(name for score in scores for name in score.columns()).items() if count > 1]
    if twice:
        raise ValueError(f"two entries give the column {twice[0]!r}: change a setting of one that shows in its name")
    if sum(score.kind == "monitor" for score in scores) > 1:
        raise ValueError("two entries are of the kind monitor: keep one of them")
    return scores


Scores = Annotated[list[Score], AfterValidator(_differ)]
