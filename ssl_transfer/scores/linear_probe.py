"""The linear probe, by one of three protocols."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import Effort, Measuring, ScoredImages, ScoreSection, facts, four, listed, score, words
from ssl_transfer.scores.score import Score
from ssl_transfer.section import Count, Preset

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_transfer.features.model_features import ModelFeatures


class LinearProbe(ScoreSection):
    """A linear classifier on frozen features: fitted exactly, or trained by SGD on them or on augmented images.

    With ``folds`` one for each fold of the training split that the data set predefines, as STL-10 asks for (Coates et
    al., AISTATS 2011): mean and standard deviation of their accuracies on the whole test split.
    """

    learned_from = "train"
    reads_training_features = True
    probe = "linear"
    protocol_keys = (
        "protocol",
        "measure",
        "normalization",
        "n_held_out",
        "n_classifiers",
        "folds",
        "epochs",
        "augment",
    )

    kind: Literal["linear_probe"] = "linear_probe"
    protocol: Literal["lbfgs", "kornblith", "sgd", "augmented"] = Field(
        "lbfgs", description="docs/evaluation.md defines them"
    )
    epochs: Count = Field(10, description="of the protocols sgd and augmented")
    augment: Preset = Field("crop", description="the preset of views that the protocol augmented trains on")
    folds: bool = Field(False, description="one probe for each predefined fold of stl10: mean and sd")

    @property
    def needs_folds(self) -> bool:
        """With ``folds``."""
        return self.folds

    @property
    def needs_all_processes(self) -> bool:
        """Where the network is shown augmented images, which processes share."""
        return self.protocol == "augmented"

    def columns(self) -> list[str]:
        """``linear`` for the exact fit; others name their protocol, and its length by SGD. ``per fold`` if so."""
        exact = {"lbfgs": "linear", "kornblith": "linear kornblith"}
        name = exact.get(self.protocol, f"linear {self.protocol} {self.epochs} ep")
        return [words(name, "per fold" if self.folds else "")]

    def check(self, images: ScoredImages) -> None:
        """Also that some class has an image to hold out."""
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.linear import refuse_single_images
        from ssl_transfer.probes.splits import held_out_tenth

        super().check(images)
        refuse_single_images(held_out_tenth(labels_of(images.train), seed=0))

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """What was fitted, and how its setting was chosen."""
        if protocol.get("protocol", "lbfgs") == "lbfgs":
            text = (
                "Multinomial logistic regression on standardized features. The strength of its L2 penalty "
                f"({listed(protocol, 'strength')}) was the best of {listed(protocol, 'n_classifiers')} on "
                f"{listed(protocol, 'n_held_out')} held-out training images; it was then fitted on all training images."
            )
        elif protocol["protocol"].lower().startswith("kornblith"):
            text = (
                "Multinomial logistic regression on the features as they are (Kornblith et al., CVPR 2019), with the "
                f"L2 penalty that did best on {listed(protocol, 'n_held_out')} held-out images "
                f"({listed(protocol, 'penalty')}), fitted again on all; measured: {listed(protocol, 'measure')}."
            )
        else:
            views = protocol.get("augment", "none")
            seen = "features" if views == "none" else f"features of augmented images ({views})"
            text = (
                f"A linear classifier trained on {seen} by SGD for {listed(protocol, 'epochs')} epochs, its settings "
                f"chosen on {listed(protocol, 'n_held_out')} held-out training images."
            )
        edge = " The choice was at the edge of the grid, beyond which it might be better." * bool(
            protocol.get("at_grid_edge")
        )
        folds = f" Mean over {listed(protocol, 'folds')} predefined folds." * ("folds" in protocol)
        return text + edge + folds

    def seconds(self, effort: Effort) -> float:
        """Every step of a fit multiplies the features by the weights; augmented images are made and seen anew."""
        once = effort.n_train * effort.width * effort.classes * effort.multiply
        if self.protocol in ("lbfgs", "kornblith"):
            return (2500 if self.protocol == "lbfgs" else 6000) * once
        return self.epochs * (130 * once + effort.n_train * effort.image * (self.protocol == "augmented"))

    def measure(self, features: "ModelFeatures", measuring: Measuring) -> list[Score]:
        """One score: of all training images, or the mean over folds."""
        import torch

        (column,) = self.columns()
        if not self.folds:
            accuracy, settings, measuring.predicted[column] = self._fit(features, measuring.seed)
            return [score(features, column, accuracy, settings)]
        found = [self._fit(features, measuring.seed, rows) for rows in _folds(features)]
        accuracies = torch.tensor([accuracy for accuracy, *_ in found], dtype=torch.float64)
        shared = {
            key: _shared([settings[key] for _, settings, _ in found])
            for key in found[0][1]
            if key not in ("held_out_accuracy", "held_out")
        }
        mean, sd = accuracies.mean().item(), accuracies.std().item()
        return [score(features, column, mean, shared | {"folds": len(found)}, sd=sd, n=len(found))]

    def _fit(
        self, features: "ModelFeatures", seed: int, rows: "Tensor | None" = None
    ) -> "tuple[float, dict[str, Any], Tensor]":
        """Accuracy, settings and predictions of a linear classifier of all training images, or of those at ``rows``."""
        from ssl_transfer import probes
        from ssl_transfer.features.augmented import augmented_features

        train_x, train_y, test_x, test_y = four(features)
        if rows is not None:
            train_x, train_y = train_x[rows], train_y[rows]
        if self.protocol == "lbfgs":
            result: Any = probes.linear_probe(train_x, train_y, test_x, test_y, seed=seed)
            settings: dict[str, Any] = {"n_classifiers": len(result.held_out_accuracy)}
        elif self.protocol == "kornblith":
            result = probes.transfer_probe(train_x, train_y, test_x, test_y, seed=seed)
            settings = {"n_classifiers": len(result.held_out), "seed": seed}
        else:
            augmented = self.protocol == "augmented"
            view = partial(augmented_features, features, self.augment, seed, rows) if augmented else None
            result = probes.sgd_probe(train_x, train_y, test_x, test_y, epochs=self.epochs, seed=seed, view=view)
            settings = {"augment": self.augment if augmented else "none"}
        settings |= {"probe": "linear", "protocol": self.protocol, "at_grid_edge": result.at_grid_edge}
        accuracy = result.score if self.protocol == "kornblith" else result.accuracy
        settings |= {key: value for key, value in facts(result).items() if key != "score"}
        return accuracy, settings, result.predicted


def _folds(features: "ModelFeatures") -> "list[Tensor]":
    train = None if features.images is None else features.images[0]
    if train is None or train.folds is None:
        what = f"{features.name} is a table of features, which" if train is None else f"{train.name} {train.split}"
        raise ValueError(f"{what} has no predefined folds, unlike the training split of stl10: leave out folds")
    return [fold.to(features.features.train_y.device) for fold in train.folds]


def _shared(values: Sequence[Any]) -> Any:
    """What is the same in all folds, or else the list of what it is in each."""
    return values[0] if all(value == values[0] for value in values) else list(values)
