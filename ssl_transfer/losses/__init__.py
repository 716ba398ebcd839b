"""Every transfer loss, as a plain function or module of tensors.

One convention serves one process and many: **the returned value is this process's share, and the sum over
processes is the loss of the global batch.**

* A relational loss takes the rows of the whole global batch and ``anchors``, the slice of rows whose terms
  this process computes; its gradient reaches all rows. Gather with a gradient:
  ``ssl_transfer.distributed.gather_rows``.
* A feature or logit loss is a mean over rows. It takes this process's rows and ``rows``, the number of rows
  of the global batch it divides by.

Without ``anchors`` or ``rows`` the rows given are the batch. DDP averages gradients: multiply the share by
the number of processes before ``backward``. Names are imported on first use, so ``weights`` can be read
without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssl_transfer.losses.weights import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    from ssl_transfer.losses.features.attention_transfer import attention_transfer as attention_transfer
    from ssl_transfer.losses.features.contrastive_representation import (
        ContrastiveRepresentation as ContrastiveRepresentation,
    )
    from ssl_transfer.losses.features.contrastive_representation import draw_negatives as draw_negatives
    from ssl_transfer.losses.features.fitnet import FitNet as FitNet
    from ssl_transfer.losses.features.soft_targets import soft_targets as soft_targets
    from ssl_transfer.losses.features.vid import VID as VID
    from ssl_transfer.losses.relational.correlation_congruence import correlation_congruence as correlation_congruence
    from ssl_transfer.losses.relational.dark_rank import dark_rank as dark_rank
    from ssl_transfer.losses.relational.pkt import pkt as pkt
    from ssl_transfer.losses.relational.relaxed_contrastive import relaxed_contrastive as relaxed_contrastive
    from ssl_transfer.losses.relational.relaxed_multi_similarity import (
        relaxed_multi_similarity as relaxed_multi_similarity,
    )
    from ssl_transfer.losses.relational.rkd import rkd_angle as rkd_angle
    from ssl_transfer.losses.relational.rkd import rkd_distance as rkd_distance
    from ssl_transfer.losses.relational.seed import seed as seed
    from ssl_transfer.losses.relational.similarity_preserving import similarity_preserving as similarity_preserving

_HOME = {
    "ContrastiveRepresentation": "features.contrastive_representation",
    "FitNet": "features.fitnet",
    "VID": "features.vid",
    "attention_transfer": "features.attention_transfer",
    "correlation_congruence": "relational.correlation_congruence",
    "dark_rank": "relational.dark_rank",
    "draw_negatives": "features.contrastive_representation",
    "pkt": "relational.pkt",
    "relaxed_contrastive": "relational.relaxed_contrastive",
    "relaxed_multi_similarity": "relational.relaxed_multi_similarity",
    "rkd_angle": "relational.rkd",
    "rkd_distance": "relational.rkd",
    "seed": "relational.seed",
    "similarity_preserving": "relational.similarity_preserving",
    "soft_targets": "features.soft_targets",
}

__all__ = ["WEIGHTS", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
