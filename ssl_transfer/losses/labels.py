"""Losses of metric learning, which use labels: those of pytorch-metric-learning, by their names in recipes."""

from pytorch_metric_learning import losses
from torch import nn

from ssl_transfer.catalog.label_losses import ARGUMENTS

_PROXIES = ("proxy_anchor", "normalized_softmax")  # these learn a vector for each class


def label_loss(name: str, *, num_classes: int, embedding_dim: int, **arguments: float) -> nn.Module:
    """The loss ``name``, a module of embeddings and labels; if it has parameters, they are a vector for each class.

    ``arguments`` are those of the loss in ``ssl_transfer.catalog.label_losses``, by default as they are there. Every
    loss brings the embeddings to length one, and none depends on the order of the rows.

    Raises:
        ValueError: there is no such loss, or it does not have such an argument.
    """
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
