"""What sits on a backbone's features: a projection to train with, or the embedding to keep."""

from jaxtyping import Float
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """The perceptron that contrastive pretraining puts on the features, from lightly.

    As it is by default, SimCLR's (Chen et al., ICML 2020) and, for a ResNet, MoCo v3's; MoCo v2's without
    ``batch_norm``; with ``num_layers=1`` one linear layer, MoCo v1's.
    """

    output_name = "projection"

    def __init__(
        self, num_features: int, *, hidden_dim: int, embedding_dim: int, num_layers: int = 2, batch_norm: bool = True
    ):
        super().__init__()
        from lightly.models.modules import heads  # slow to import, and only pretraining needs it

        self.embedding_dim = embedding_dim
        self.layers = (
            heads.ProjectionHead([(num_features, embedding_dim, None, None)])
            if num_layers == 1
            else heads.MoCoProjectionHead(num_features, hidden_dim, embedding_dim, num_layers, batch_norm)
        )

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n d"]:
        """Project features, not normalized."""
        return self.layers(features)


class ClassifierHead(nn.Module):
    """One linear layer from features to the logits of the classes."""

    output_name = "logits"

    def __init__(self, num_features: int, *, num_classes: int):
        super().__init__()
        self.embedding_dim = num_classes
        self.linear = nn.Linear(num_features, num_classes)

    def forward(self, features: Float[Tensor, "n d_features"]) -> Float[Tensor, "n c"]:
        """Logits, of which the softmax is the probability of each class."""
        return self.linear(features)


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
