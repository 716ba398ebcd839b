"""Losses of metric learning, which know the classes: pytorch-metric-learning's, by the names of recipes.

The table is plain data, readable without torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# The arguments of each loss that a recipe may set, and their defaults: of Kim et al., "Proxy anchor loss for deep
# metric learning" (CVPR 2020), section 4.2, and of Wang et al., "Multi-similarity loss" (CVPR 2019), as the library
# has it. The margins of the others are for embeddings of norm one, whose distances run from 0 to 2.
ARGUMENTS: dict[str, dict[str, float]] = {
    "proxy_anchor": {"margin": 0.1, "alpha": 32.0},
    "multi_similarity": {"alpha": 2.0, "beta": 50.0, "base": 0.5},
    "contrastive": {"pos_margin": 0.0, "neg_margin": 0.5},
    "triplet": {"margin": 0.1},
    "normalized_softmax": {"temperature": 0.05},
}
_PROXIES = ("proxy_anchor", "normalized_softmax")  # these learn a vector for each class


def label_loss(name: str, *, num_classes: int, embedding_dim: int, **arguments: float) -> "nn.Module":
    """The loss ``name`` of (embeddings, labels); its parameters, if it has any, are its proxies.

    Every one of them normalizes the embeddings. The value does not depend on the order of the rows.

    Raises:
        ValueError: there is no such loss, or it does not have such an argument.
    """
    from pytorch_metric_learning import losses

    if name not in ARGUMENTS:
        raise ValueError(f"there is no loss named {name!r}: choose {', '.join(ARGUMENTS)}")
    unknown = sorted(arguments.keys() - ARGUMENTS[name].keys())
    if unknown:
        raise ValueError(f"{name} has no argument {', '.join(unknown)}: it has {', '.join(ARGUMENTS[name])}")
    classes = {
        "proxy_anchor": losses.ProxyAnchorLoss,
        "multi_similarity": losses.MultiSimilarityLoss,
        "contrastive": losses.ContrastiveLoss,
        "triplet": losses.TripletMarginLoss,
        "normalized_softmax": losses.NormalizedSoftmaxLoss,
    }
    sizes = {"num_classes": num_classes, "embedding_size": embedding_dim} if name in _PROXIES else {}
    return classes[name](**sizes, **(ARGUMENTS[name] | arguments))
