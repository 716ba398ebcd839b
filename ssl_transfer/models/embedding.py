"""A backbone with the head that is trained on it."""

from jaxtyping import Float
from torch import Tensor, nn

from ssl_transfer.models.backbones import Backbone
from ssl_transfer.models.heads import ClassifierHead, EmbeddingHead, ProjectionHead
from ssl_transfer.models.perceptron import Perceptron


class EmbeddingModel(nn.Module):
    """Embeddings of images: the output of ``head``, or the features of ``backbone`` where ``head`` is None.

    ``num_features`` is the width of the features and ``embedding_dim`` that of what calling the model gives.
    """

    def __init__(
        self, backbone: Backbone, head: ProjectionHead | EmbeddingHead | ClassifierHead | Perceptron | None = None
    ):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_features = backbone.num_features
        self.embedding_dim = backbone.num_features if head is None else head.embedding_dim

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Embed images in [0, 1], not normalized."""
        features = self.backbone(images)
        return features if self.head is None else self.head(features)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Pooled features of the backbone, before the head."""
        return self.backbone(images)

    def width_of(self, output: str) -> int:
        """The width of an output by its name: that of the features, or else of what the head gives."""
        return self.num_features if output == "features" else self.embedding_dim

    def outputs(self, images: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _"]]:
        """All that the model gives, by name: ``features``, and what the head gives by the head's ``output_name``."""
        features = self.backbone(images)
        if self.head is None:
            return {"features": features}
        return {"features": features, self.head.output_name: self.head(features)}


class Output(nn.Module):
    """One named output of a model as a module of its own: what a teacher hands on, or what a probe scores.

    ``name`` is ``features``, or what the model's head calls its output: ``projection``, ``embedding`` or ``logits``.

    Raises:
        ValueError: the model has no such output.
    """

    def __init__(self, model: EmbeddingModel, name: str):
        super().__init__()
        given = ["features"] if model.head is None else ["features", model.head.output_name]
        if name not in given:
            raise ValueError(f"the model gives {' and '.join(given)}, not {name!r}: choose one of these as output")
        self.model, self.name = model, name

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The chosen output of images in [0, 1]."""
        return self.model.features(images) if self.name == "features" else self.model(images)


class WithLogits(nn.Module):
    """One output of a model with a classifier, by ``name``, and its logits, in one pass through the backbone."""

    def __init__(self, model: EmbeddingModel, name: str):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n classes"]]:
        """The chosen output of images in [0, 1], then their logits."""
        outputs = self.model.outputs(images)
        return outputs[self.name], outputs["logits"]


class FeatureMaps(nn.Module):
    """The feature maps of a model's backbone and the model's embedding in one pass, for losses that compare maps."""

    def __init__(self, model: EmbeddingModel):
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[list[Float[Tensor, "n _ _ _"]], Float[Tensor, "n d"]]:
        """The maps of the stages, shallow to deep, and the embedding."""
        maps, features = self.model.backbone.maps_and_features(images)
        return maps, features if self.model.head is None else self.model.head(features)
