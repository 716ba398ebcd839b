"""What sits on a backbone's features: a projection to train with, or the embedding to keep."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

LastNorm = Literal["affine", "plain", "none"]  # after a head's last layer: a batch norm with weights, without, or none


class ProjectionHead(nn.Module):
    """The perceptron that contrastive pretraining puts on the features, made of lightly's.

    As it is by default, SimCLR's (Chen et al., ICML 2020); MoCo v2's without ``batch_norm``; with ``num_layers=1`` one
    linear layer, MoCo v1's; MoCo v3's with ``last_norm="plain"``. ``hidden_dim`` is the width of all layers but the
    last, which is ``embedding_dim`` wide. ``last_norm`` says what follows the last layer where there are batch norms:
    one with weights, one without, or none. Linear layers have a bias where no batch norm can follow them.
    """

    output_name = "projection"

    def __init__(
        self,
        num_features: int,
        *,
        hidden_dim: int,
        embedding_dim: int,
        num_layers: int = 2,
        batch_norm: bool = True,
        last_norm: LastNorm = "affine",
    ):
        super().__init__()
        from lightly.models.modules import heads  # slow to import, and only pretraining needs it

        self.embedding_dim = embedding_dim
        with_norms = batch_norm and num_layers > 1
        widths = [num_features, *[hidden_dim] * (num_layers - 1), embedding_dim]
        norms: list[nn.Module | None] = [nn.BatchNorm1d(width) if with_norms else None for width in widths[1:]]
        if with_norms and last_norm != "affine":
            norms[-1] = {"plain": nn.BatchNorm1d(embedding_dim, affine=False), "none": None}[last_norm]
        activations = [*(nn.ReLU() for _ in widths[2:]), None]
        biases = [not with_norms] * num_layers
        self.layers = heads.ProjectionHead(list(zip(widths, widths[1:], norms, activations, biases, strict=False)))

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n d"]:
        """Project features, not normalized."""
        return self.layers(features)


class ClassifierHead(nn.Module):
    """One linear layer from ``num_features`` features to the logits of ``num_classes`` classes."""

    output_name = "logits"

    def __init__(self, num_features: int, *, num_classes: int):
        super().__init__()
        self.embedding_dim = num_classes
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n c"]:
        """Logits, of which the softmax is the probability of each class."""
        return self.linear(features)


class EmbeddingHead(nn.Module):
    """A linear layer to ``embedding_dim``, orthogonal and with zero bias at first, as the authors of the loss have it.

    Kim et al., Embedding Transfer with Label Relaxation for Improved Metric Learning, CVPR 2021.
    """

    output_name = "embedding"

    def __init__(self, num_features: int, *, embedding_dim: int):
        super().__init__()
        self.embedding_dim = embedding_dim
        self.linear = nn.Linear(num_features, embedding_dim)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n d"]:
        """Embed features, not normalized."""
        return self.linear(features)
