"""Every transfer loss, as a plain function or module of tensors.

One convention serves one process and many: **the returned value is this process's share, and the sum over
processes is the loss of the global batch.**

* A relational loss takes the rows of the whole global batch and ``anchors``, the slice of rows whose terms
  this process computes; its gradient reaches all rows. Gather with a gradient:
  ``ssl_transfer.distributed.gather_rows``.
* A feature or logit loss is a mean over rows. It takes this process's rows and ``rows``, the number of rows
  of the global batch it divides by.

Without ``anchors`` or ``rows`` the rows given are the batch. DDP averages gradients: multiply the share by
the number of processes before ``backward``.
"""

from ssl_transfer.losses.features.attention_transfer import attention_transfer
from ssl_transfer.losses.features.contrastive_representation import ContrastiveRepresentation
from ssl_transfer.losses.features.fitnet import FitNet
from ssl_transfer.losses.features.soft_targets import soft_targets
from ssl_transfer.losses.features.vid import VID
from ssl_transfer.losses.relational.correlation_congruence import correlation_congruence
from ssl_transfer.losses.relational.dark_rank import dark_rank
from ssl_transfer.losses.relational.pkt import pkt
from ssl_transfer.losses.relational.relaxed_contrastive import relaxed_contrastive
from ssl_transfer.losses.relational.relaxed_multi_similarity import relaxed_multi_similarity
from ssl_transfer.losses.relational.rkd import rkd_angle, rkd_distance
from ssl_transfer.losses.relational.seed import seed
from ssl_transfer.losses.relational.similarity_preserving import similarity_preserving

__all__ = [
    "ContrastiveRepresentation",
    "FitNet",
    "VID",
    "attention_transfer",
    "correlation_congruence",
    "dark_rank",
    "pkt",
    "relaxed_contrastive",
    "relaxed_multi_similarity",
    "rkd_angle",
    "rkd_distance",
    "seed",
    "similarity_preserving",
    "soft_targets",
]
