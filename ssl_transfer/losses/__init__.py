"""Every loss of ours, as a plain function or module of tensors.

One convention serves one process and many: **the returned value is this process's share, and the sum over
processes is the loss of the global batch.**

* A relational loss takes the rows of the whole global batch, gathered with a gradient by
  ``ssl_transfer.distributed.gather_rows``, and ``anchors``, the slice of rows whose terms this process computes.
  Its gradient reaches all rows. So does NT-Xent, which compares two views instead of student and teacher.
* A feature or logit loss is a mean over rows. It takes the rows of this process, and ``rows``, the number of rows in
  the global batch, to divide by.

Without ``anchors`` or ``rows`` the rows that are given are the global batch. DDP averages gradients over processes:
multiply the share by the number of processes before ``backward``.
"""

from ssl_transfer.losses.features.attention_transfer import attention_transfer
from ssl_transfer.losses.features.contrastive_representation import ContrastiveRepresentation
from ssl_transfer.losses.features.fitnet import FitNet
from ssl_transfer.losses.features.soft_targets import soft_targets
from ssl_transfer.losses.features.vid import VID
from ssl_transfer.losses.nt_xent import nt_xent
from ssl_transfer.losses.relational.correlation_congruence import correlation_congruence
from ssl_transfer.losses.relational.dark_rank import dark_rank
from ssl_transfer.losses.relational.pkt import pkt
from ssl_transfer.losses.relational.regression import regression
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
    "nt_xent",
    "pkt",
    "regression",
    "relaxed_contrastive",
    "relaxed_multi_similarity",
    "rkd_angle",
    "rkd_distance",
    "seed",
    "similarity_preserving",
    "soft_targets",
]
