"""Momentum contrast: the model is compared with a copy of itself that trails behind.

The trailing copy is moved at the beginning of a step, before it encodes: at step ``s`` it is the average of the model's
weights at the beginning of steps 0 to ``s``, with a momentum that is a function of the step. It is part of the
checkpoint, so a run continues exactly.

Batch norm. The papers' encoders normalize over the images of one GPU, and version 1 and 2 shuffle images between GPUs
for the trailing copy, so that a query and its key do not share statistics by which to recognize each other. Ours
normalize over the global batch, or a run would depend on the number of processes, and there is nothing to shuffle
between. That is what solo-learn does in its CIFAR runs of MoCo v2 (92.9 % on CIFAR-10 after 1,000 epochs); lightly's
benchmark splits the batch into eight parts instead (85.0 % after 200), and the authors warn that statistics of the
whole batch can still tell its keys from older ones (facebookresearch/moco, issue 46). Each view is a pass of its own,
in model and copy alike, so queries and keys share images but no statistics. MoCo v3 has no queue: all keys of a query
have the same statistics, and there is nothing to recognize.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from lightly.loss import NTXentLoss
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_transfer.data import Batch
from ssl_transfer.distributed import gather_rows, own_rows, world_size
from ssl_transfer.losses.precision import full_precision, widen
from ssl_transfer.models import EmbeddingModel, MomentumEncoder, ProjectionHead
from ssl_transfer.models.heads import LastNorm
from ssl_transfer.tasks.embed import embed, in_parts, number_of_parts
from ssl_transfer.tasks.queue import Queue


class MoCo(nn.Module):
    """Find the other view of an image among earlier images (He et al., CVPR 2020; Chen et al., 2020).

    The first view's embedding is the query, the second's, by the trailing copy, its positive key; the negatives are
    the keys of earlier steps in the queue. The loss is lightly's NT-Xent with a memory bank, averaged over queries.
    With ``symmetric`` the second view asks for the first too, of the same queue, and the loss is the mean of both.
    ``momentum`` gives the copy's momentum at a step. ``model`` ends in a projection head: linear in version 1, a
    perceptron without batch norm in version 2.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        *,
        queue_size: int,
        temperature: float,
        momentum: Callable[[int], float],
        symmetric: bool,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.key_encoder = model, MomentumEncoder(model)
        self.momentum, self.symmetric, self.micro_batch_size = momentum, symmetric, micro_batch_size
        self.nt_xent = NTXentLoss(temperature=temperature)
        self.nt_xent.memory_bank = Queue(queue_size, model.embedding_dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Contrast the views of ``batch`` with each other and with the queue, then push the new keys into it."""
        first, second = batch.views
        asking, asked = ([first, second], [second, first]) if self.symmetric else ([first], [second])
        self.key_encoder.update(self.model, momentum=self.momentum(batch.step))
        queries = [widen(embed(self.model, view, self.micro_batch_size, views=1)) for view in asking]
        keys = [widen(_keys(self.key_encoder, view, self.micro_batch_size)) for view in asked]
        with full_precision(first.device):
            losses = [self.nt_xent(query, key) for query, key in zip(queries, keys, strict=True)]
        self.nt_xent.memory_bank.push(torch.cat(keys), views=len(keys))
        return {"loss": torch.stack(losses).mean() / world_size()}


class MoCoV3(nn.Module):
    """Predict the other view's embedding among those of all images of the batch (Chen, Xie and He, ICCV 2021).

    With queries ``q`` (the model's embeddings through a predictor) and keys ``k`` (the trailing copy's, of the other
    view) of length one, n images and temperature T, each direction adds
    ``2 T / n * sum_i -log(exp(q_i . k_i / T) / sum_j exp(q_i . k_j / T))``. ``momentum`` gives the copy's momentum at
    a step. The predictor is a perceptron of two layers, ``hidden_dim`` wide. As in the authors' code
    (facebookresearch/moco-v3, moco/builder.py) a ResNet's ends in a linear layer, ``last_norm="none"``, and a vision
    transformer's in a batch norm without weights, ``"plain"``, as the projections of both do; the paper has batch norms
    after all layers.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        *,
        hidden_dim: int,
        temperature: float,
        momentum: Callable[[int], float],
        last_norm: LastNorm,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        width = model.embedding_dim
        self.model, self.key_encoder = model, MomentumEncoder(model)
        self.predictor = ProjectionHead(width, hidden_dim=hidden_dim, embedding_dim=width, last_norm=last_norm)
        self.temperature, self.momentum, self.micro_batch_size = temperature, momentum, micro_batch_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Contrast each view of ``batch`` with the other."""
        self.key_encoder.update(self.model, momentum=self.momentum(batch.step))
        queries = [self.predictor(embed(self.model, view, self.micro_batch_size, views=1)) for view in batch.views]
        keys = [gather_rows(_keys(self.key_encoder, view, self.micro_batch_size)) for view in batch.views]
        with full_precision(keys[0].device):
            return {"loss": self._contrast(queries[0], keys[1]) + self._contrast(queries[1], keys[0])}

    # lightly's losses have either a queue or, as SimCLR, the other queries among the negatives; here there is neither.
    def _contrast(self, queries: Float[Tensor, "n d"], keys: Float[Tensor, "n_global d"]) -> Float[Tensor, ""]:
        own = own_rows(len(queries))
        logits = F.normalize(widen(queries), dim=1) @ F.normalize(widen(keys), dim=1).T / self.temperature
        positives = torch.arange(own.start, own.stop, device=logits.device)
        return 2 * self.temperature * F.cross_entropy(logits, positives, reduction="sum") / len(keys)


@torch.no_grad()
def _keys(encoder: MomentumEncoder, view: Tensor, micro_batch_size: int | None) -> Tensor:
    """In the same parts as the queries, so that batch norm sees the same images."""
    return in_parts(encoder, view, number_of_parts(view, micro_batch_size, views=1))
