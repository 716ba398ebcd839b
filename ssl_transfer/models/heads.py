"""What sits on a backbone's features: a projection to train with, or the embedding to keep."""

from jaxtyping import Float
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """The perceptron that SimCLR trains and throws away (Chen et al., ICML 2020), from lightly."""

    output_name = "projection"

    def __init__(self, num_features: int, *, hidden_dim: int, embedding_dim: int, num_layers: int = 2):
        super().__init__()
        from lightly.models.modules.heads import (
            SimCLRProjectionHead,
        )  # slow to import, and only pretraining needs it

        self.embedding_dim = embedding_dim
        self.layers = SimCLRProjectionHead(num_features, hidden_dim, embedding_dim, num_layers)

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n d"]:
        """Project features, not normalized."""
        return self.layers(features)


class EmbeddingHead(nn.Module):
    """One linear layer, orthogonal at first and with zero bias, as the authors of the loss have it.

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
