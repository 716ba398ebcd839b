"""Learning from labels: metric learning and classification."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from ssl_transfer.catalog.label_losses import ARGUMENTS, POSITIVE
from ssl_transfer.section import BelowOne, NotNegative, Positive, rule, suggest
from ssl_transfer.tasks.sections.base import TaskInputs, TaskSection

if TYPE_CHECKING:
    from torch import nn


class Metric(TaskSection):
    """Learn from labels an embedding in which a class lies together, by a loss of pytorch-metric-learning."""

    kind: Literal["metric"]
    loss: Literal["proxy_anchor", "multi_similarity", "contrastive", "triplet", "normalized_softmax"] = "proxy_anchor"
    # by its name in pytorch-metric-learning
    settings: dict[str, float] = {}  # of the loss; what is left out is filled in from catalog/label_losses.py
    proxy_lr_scale: Positive = 100.0  # of the loss's proxies, if it has any, to optim.lr
    freeze_batch_norm: bool = False  # keep the statistics of the pretrained weights

    @classmethod
    def completed(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """With the settings of the loss that are left out."""
        loss, given = raw.get("loss", cls.model_fields["loss"].default), raw.get("settings", {})
        arguments = ARGUMENTS.get(loss) if isinstance(loss, str) else None
        if arguments is None or not isinstance(given, dict):  # told in the field's own words
            return raw
        return {**raw, "settings": arguments | given}

    @rule
    def _settings_are_arguments_of_the_loss(self) -> Iterator[str]:
        arguments = ARGUMENTS[self.loss]
        for name, value in self.settings.items():
            if name not in arguments:
                yield f"settings has no key {name!r}{suggest(name, arguments)}"
            elif value <= 0 and name in POSITIVE:
                yield f"settings.{name} is {value:g}: give a number above 0"

    @property
    def learns_labels(self) -> bool:
        """Always."""
        return True

    @property
    def lr_scales(self) -> dict[str, float]:
        """The proxies' rate: they are the parameters of the loss."""
        return {"loss": self.proxy_lr_scale}

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """See :class:`ssl_transfer.tasks.metric.MetricLearning`.

        Raises:
            ValueError: the images have no labels.
        """
        from ssl_transfer.losses.labels import label_loss
        from ssl_transfer.tasks.metric import MetricLearning

        model, images = inputs.model, inputs.images
        if images.classes is None:
            raise ValueError(f"metric learning needs labels, and {images.name} {images.split} has none")
        loss = label_loss(self.loss, num_classes=images.classes, embedding_dim=model.embedding_dim, **self.settings)
        return MetricLearning(
            model, loss, freeze_batch_norm=self.freeze_batch_norm, micro_batch_size=inputs.micro_batch_size
        )


class Classify(TaskSection):
    """Learn labels by cross entropy."""

    kind: Literal["classify"]
    label_smoothing: BelowOne = 0.0  # share of a label that is spread over all classes
    mixup: NotNegative = 0.0  # a of Beta(a, a), the share of an image in its mixture with another; 0: off
    cutmix: NotNegative = 0.0  # the same for a pasted box; where both are on, each is taken half of the time

    @property
    def classifies(self) -> bool:
        """Always."""
        return True

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """See :class:`ssl_transfer.tasks.classify.Classify`."""
        from ssl_transfer.tasks import classify

        return classify.Classify(
            inputs.model,
            label_smoothing=self.label_smoothing,
            mixup=self.mixup,
            cutmix=self.cutmix,
            seed=inputs.seed,
            micro_batch_size=inputs.micro_batch_size,
        )


LabelTask = Metric | Classify
