"""What all kinds of scores share: a section of a recipe that knows its columns, its demands and its measure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ssl_transfer.catalog.roles import Role
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_transfer.data import Augment, Images
    from ssl_transfer.features.model_features import ModelFeatures
    from ssl_transfer.models import EmbeddingModel

Metric = Literal["cosine", "euclidean"]
Layer = Literal["features", "output"]  # output: what the model gives, its head's embedding if it has a head
Watcher = Callable[[int], Mapping[str, float]]  # figures after a step, empty where none are due


@dataclass(frozen=True)
class ScoredImages:
    """The images that scores are taken of, before any is decoded, and what else a score may refuse.

    ``resident`` is the recipe's ``data.resident``: whether pixels will be held. ``teacher`` says whether there is one,
    ``classes`` how many a trained classifier knows, None where there is no classifier.
    """

    train: "Images"
    test: "Images"
    resident: Literal["auto", True, False]
    teacher: bool
    classes: int | None


@dataclass(frozen=True)
class WatchedTraining:
    """What a score that is taken during training looks at.

    ``model`` gives the model that will be saved, as it is now; ``images`` are those held out of training, or else those
    that are trained on; ``test`` opens the test images, on the device.
    """

    model: "Callable[[], EmbeddingModel]"
    images: "Images"
    views: "Sequence[Augment]"
    test: "Callable[[], Images]"
    steps_per_epoch: int
    seed: int


@dataclass(frozen=True)
class Measuring:
    """What a measure may look at besides the features that it scores.

    ``teachers`` are the features of the same layer of each teacher. ``classes`` are those of the run's own classifier:
    one with another number of outputs knows other classes than the images have. A probe leaves the class that it gives
    each test image in ``predicted``, by its column.
    """

    seed: int = 0
    teachers: "Sequence[ModelFeatures]" = ()
    classes: int | None = None
    predicted: "dict[str, Tensor]" = field(default_factory=dict)


@dataclass(frozen=True)
class Effort:
    """What decides how long the measures of a model take: its images, its width, and how fast this machine is.

    ``multiply`` is the seconds of one multiply-add of a matrix product, ``image`` those of the features of an image.
    """

    n_train: int
    n_test: int
    classes: int
    width: int
    multiply: float
    image: float


class ScoreSection(Section):
    """An entry of a recipe's ``score``.

    The class variables say what the kind needs, so that nothing outside its file has to know the kind:
    ``learned_from`` is the part of the data whose labels decide the score (``train``, what probes learn from, or
    ``training``, what the model was trained on), ``reads_training_features`` whether it looks at the features of the
    training images, ``alone`` whether a recipe may have one entry of the kind at most, and ``protocol_keys`` which keys
    of its protocol must agree before two of its scores may be compared.
    """

    learned_from: ClassVar[Literal["train", "training"] | None] = None
    reads_training_features: ClassVar[bool] = False
    needs_classifier: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    needs_test_labels: ClassVar[bool] = True
    during_training: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    protocol_keys: ClassVar[tuple[str, ...]] = ()
    flags: ClassVar[dict[str, str]] = {}  # of the program in eval/: further names of a key's option
    probe: ClassVar[str] = ""  # what protocols call the kind, where that is not its name

    kind: str

    @property
    def scored_layer(self) -> str:
        """The layer of the model that is looked at."""
        return getattr(self, "layer", "features")

    @property
    def needs_folds(self) -> bool:
        """Whether it needs the folds that a data set predefines for its training split."""
        return False

    @property
    def needs_all_processes(self) -> bool:
        """Whether all processes take part in the measure, and not the main one alone."""
        return False

    def columns(self) -> list[str]:
        """The columns that this entry fills, in the order of :meth:`measure`.

        A setting shows where it differs from what the plain name has always meant. That is written down in the kind's
        file apart from the default, so that another default does not rename the columns of older runs.
        """
        raise NotImplementedError

    def check(self, images: ScoredImages) -> None:
        """Refuse what the measure would refuse, as far as the number and the labels of the images tell it.

        Raises:
            ValueError: the score cannot be had from these images, in the words of its probe.
        """
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.checks import check_classes, check_labels

        test_y = labels_of(images.test)
        if self.needs_test_labels:
            check_labels(test_y, len(images.test), "test")
        if self.learned_from == "train":
            train_y = labels_of(images.train)
            check_labels(train_y, len(images.train), "train")
            check_classes(train_y, test_y)

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """The scores of one model, empty where the kind has none of it.

        Raises:
            ValueError: the features or their labels do not allow it.
        """
        return []

    def seconds(self, effort: Effort) -> float:
        """About how long :meth:`measure` takes of one model, to within a factor of a few, before anything is measured.

        The numbers in it are multiply-adds for each number that is looked at, as they were timed on two processors.
        """
        return 0.0

    def watcher(self, training: WatchedTraining) -> Watcher | None:
        """What is called after each step of training, if the kind is measured then."""
        return None

    @classmethod
    def took(cls, protocol: Mapping[str, Any]) -> bool:
        """Whether a score with this protocol is of this kind."""
        return protocol.get("probe") == (cls.probe or cls.model_fields["kind"].default)

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """In a sentence or two, for a person: how a score with this protocol was taken.

        A protocol of an earlier version may lack keys.
        """
        return ""

    def from_log(self, folder: Path, model: str, role: Role) -> list[Score]:
        """The scores of a kind that is measured during training, from the log of the run in ``folder``."""
        return []


def listed(protocol: Mapping[str, Any], key: str) -> str:
    """A value of a protocol for a sentence: numbers without needless digits, a question mark where it is missing."""
    value = protocol.get(key, "?")
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def words(*parts: str) -> str:
    """The name of a column from those of its parts that are not empty."""
    return " ".join(part for part in parts if part)


def metric_word(metric: Metric) -> str:
    """``L2`` for Euclidean; cosine is what a plain name means."""
    return {"cosine": "", "euclidean": "L2"}[metric]


def layer_word(layer: str) -> str:
    """The layer, unless it is the features."""
    return "" if layer == "features" else layer


def score(
    features: "ModelFeatures",
    metric: str,
    value: float,
    settings: Mapping[str, Any],
    *,
    sd: float | None = None,
    n: int | None = None,
) -> Score:
    """A score of these features, its protocol being theirs and the probe's ``settings``.

    Raises:
        ValueError: ``value`` is no fraction. Tables show every score in percent.
    """
    if abs(value) > 1.001:  # but for rounding
        raise ValueError(
            f"{metric} of {features.name} is {value:g}, and a score is a fraction, which tables show in percent: "
            "keep other numbers in the protocol of a score"
        )
    return Score(features.name, features.role, metric, value, {**features.protocol, **settings}, sd=sd, n=n)


def four(features: "ModelFeatures") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
    """Features and labels of both splits as probes take them."""
    table = features.held
    return table.train_x, table.train_y, table.test_x, table.test_y


def facts(result: Any) -> dict[str, Any]:
    """The values that a probe used and what it found on its way: all but its accuracy and predictions."""
    return {key: value for key, value in asdict(result).items() if key not in ("accuracy", "predicted")}
