"""What the sections of all tasks share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssl_transfer.section import Section

if TYPE_CHECKING:
    from torch import nn

    from ssl_transfer.data import Images
    from ssl_transfer.models import EmbeddingModel
    from ssl_transfer.models.checkpoint import HeadSpec


@dataclass(frozen=True)
class TaskInputs:
    """What a task is built from, its own section apart.

    ``teachers`` are those that the section names, in its order. ``total_steps`` are those of all epochs, which a
    schedule is planned for even where a run stops early. ``micro_batch_size`` counts views over all processes; None
    embeds a whole batch at a time.
    """

    model: "EmbeddingModel"
    teachers: "Sequence[EmbeddingModel]"
    images: "Images"
    seed: int
    total_steps: int
    micro_batch_size: int | None


class TaskSection(Section):
    """A section that knows which head its model ends in and builds the module that is trained."""

    kind: str

    @property
    def classifies(self) -> bool:
        """Whether the model ends in a classifier that learns labels."""
        return False

    @property
    def learns_labels(self) -> bool:
        """Whether the labels of the training images decide anything of the model."""
        return self.classifies

    @property
    def rows_needed(self) -> int:
        """How many views a batch must have at least, over all processes."""
        return 2

    @property
    def lr_scales(self) -> dict[str, float]:
        """Factors of the learning rate for parts of the task, by the names of its submodules."""
        return {}

    def model_output(self, embedding_dim: int | None) -> str | None:
        """What the model gives beside its features, by name; ``embedding_dim`` is the recipe's ``model.embedding_dim``.

        None where a model ends in its features.
        """
        if self.classifies:
            return "logits"
        return None if embedding_dim is None else "embedding"

    def model_head(self, embedding_dim: int | None, images: "Images") -> "HeadSpec | None":
        """The head of a model that learns from ``images``.

        Raises:
            ValueError: the task needs labels and the images have none.
        """
        from ssl_transfer.models.checkpoint import HeadSpec

        if self.classifies:
            if images.classes is None:
                raise ValueError(
                    f"{images.name} {images.split} has no labels to learn: leave out task.labels, or choose other data"
                )
            return HeadSpec("classifier", images.classes)
        return None if embedding_dim is None else HeadSpec("embedding", embedding_dim)

    def build(self, inputs: TaskInputs) -> "nn.Module":
        """The module from a batch to ``{"loss": this process's share, ...}``.

        Raises:
            ValueError: the model, its teacher or the images lack something that the task needs.
        """
        raise NotImplementedError
