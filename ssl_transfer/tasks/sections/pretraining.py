"""Self-supervised pretraining: how a teacher is made from unlabeled images."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ssl_transfer.section import Count, Probability, Temperature
from ssl_transfer.tasks.sections.base import TaskInputs, TaskSection

if TYPE_CHECKING:
    from torch import nn

    from ssl_transfer.data import Images
    from ssl_transfer.models.checkpoint import HeadSpec


class Pretraining(TaskSection):
    """What all ways of making a teacher share: two views of an image, a projection on the features."""

    projection_dim: Count = 128  # width of what is compared
    hidden_dim: Count | None = None  # width of the projection's hidden layer; null: that of the features

    def model_output(self, embedding_dim: int | None) -> str:
        """A projection, whatever ``embedding_dim``."""
        return "projection"

    def model_head(self, embedding_dim: int | None, images: "Images") -> "HeadSpec":
        """A perceptron of two layers with batch norm."""
        from ssl_transfer.models.checkpoint import HeadSpec

        return HeadSpec("projection", self.projection_dim, self.hidden_dim)


class SimCLR(Pretraining):
    """Contrast two views of an image with all others (Chen et al., ICML 2020)."""

    kind: Literal["simclr"]
    temperature: Temperature = 0.5  # cosines are divided by it

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """See :class:`ssl_transfer.tasks.pretrain.SimCLR`."""
        from ssl_transfer.tasks import pretrain

        return pretrain.SimCLR(inputs.model, temperature=self.temperature, micro_batch_size=inputs.micro_batch_size)


class MoCo(Pretraining):
    """Contrast a view with the other one and a queue of earlier images (He et al., CVPR 2020; Chen et al., 2020).

    Version 1 is ``head: linear, temperature: 0.07`` with ``augment: moco_v1``; version 2 the defaults and ``moco_v2``.
    """

    kind: Literal["moco"]
    head: Literal["linear", "mlp"] = "mlp"  # of the projection: one layer (version 1), or two (version 2)
    temperature: Temperature = 0.2  # cosines are divided by it
    queue_size: Count = 65536  # views of earlier steps that a view is contrasted with
    momentum: Probability = 0.999  # share that the trailing copy of the network keeps in a step
    final_momentum: Probability | None = None  # of the last step, reached by half a cosine; null: constant
    symmetric: bool = False  # each view asks for the other, as small data sets like it; the papers: the first asks

    def model_head(self, embedding_dim: int | None, images: "Images") -> "HeadSpec":
        """One linear layer in version 1, two layers in version 2, without batch norm."""
        from ssl_transfer.models.checkpoint import HeadSpec

        layers = {"linear": 1, "mlp": 2}[self.head]
        return HeadSpec("projection", self.projection_dim, self.hidden_dim, num_layers=layers, batch_norm=False)

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """See :class:`ssl_transfer.tasks.moco.MoCo`."""
        from ssl_transfer.tasks import moco

        return moco.MoCo(
            inputs.model,
            queue_size=self.queue_size,
            temperature=self.temperature,
            momentum=_momentum(self.momentum, self.final_momentum, inputs.total_steps),
            symmetric=self.symmetric,
            micro_batch_size=inputs.micro_batch_size,
        )


class MoCoV3(Pretraining):
    """Contrast predictions of a view with the other view of all images of the batch (Chen, Xie and He, ICCV 2021)."""

    kind: Literal["moco_v3"]
    temperature: Temperature = 1.0  # cosines are divided by it
    momentum: Probability = 0.99  # share that the trailing copy of the network keeps in the first step
    final_momentum: Probability | None = 1.0  # of the last step, reached by half a cosine; null: constant
    projection_dim: Count = 256  # width of what is compared
    hidden_dim: Count = 4096  # width of the hidden layers of projection and predictor
    projection_layers: Annotated[int, Field(ge=2, le=16)] = 2  # of a ResNet; a vision transformer has 3

    def model_head(self, embedding_dim: int | None, images: "Images") -> "HeadSpec":
        """A perceptron of ``projection_layers`` layers, each with a batch norm, of which the last has no weights."""
        from ssl_transfer.models.checkpoint import HeadSpec

        layers = self.projection_layers
        return HeadSpec("projection", self.projection_dim, self.hidden_dim, num_layers=layers, last_norm="plain")

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """See :class:`ssl_transfer.tasks.moco.MoCoV3`."""
        from ssl_transfer.tasks import moco

        return moco.MoCoV3(
            inputs.model,
            hidden_dim=self.hidden_dim,
            temperature=self.temperature,
            momentum=_momentum(self.momentum, self.final_momentum, inputs.total_steps),
            last_norm="none" if self.projection_layers == 2 else "plain",  # a ResNet's predictor, a transformer's
            micro_batch_size=inputs.micro_batch_size,
        )


def _momentum(base: float, final: float | None, total_steps: int) -> Callable[[int], float]:
    """The trailing copy's momentum as a function of the step."""
    from ssl_transfer.schedules import constant, cosine

    if final is None:
        return partial(constant, base=base)
    return partial(cosine, total_steps=total_steps, base=base, final=final)


PretrainingTask = SimCLR | MoCo | MoCoV3
