"""Classification: a network learns labels, alone or while it learns from a teacher."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_transfer.data import Batch
from ssl_transfer.data.views.mixing import draw_mix
from ssl_transfer.distributed import gather_rows, own_rows, world_size
from ssl_transfer.losses.precision import widen
from ssl_transfer.tasks.embed import embed
from ssl_transfer.tasks.transfer import Transfer


class Classify(nn.Module):
    """Train ``model``, which gives logits, by cross entropy with the labels.

    ``mixup`` and ``cutmix`` are timm's (:mod:`ssl_transfer.data.views.mixing`), each the a of Beta(a, a), 0 for never.
    An image's partner is one of the global batch: with several processes the views are gathered, without a gradient, so
    each process then holds the whole batch's images once.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        label_smoothing: float,
        mixup: float,
        cutmix: float,
        seed: int,
        micro_batch_size: int | None = None,
    ):
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing
        self.mixup, self.cutmix, self.seed = mixup, cutmix, seed
        self.micro_batch_size = micro_batch_size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Classify all views of ``batch``."""
        labels = _labels_of(batch)
        if not (self.mixup or self.cutmix):
            logits = embed(self.model, torch.cat(batch.views), self.micro_batch_size, views=len(batch.views))
            loss = cross_entropy_share(logits, labels.repeat(len(batch.views)), label_smoothing=self.label_smoothing)
            return {"loss": loss}
        mixes = [
            draw_mix(
                seed=self.seed,
                step=batch.step,
                view=view,
                mixup=self.mixup,
                cutmix=self.cutmix,
                height=images.shape[-2],
                width=images.shape[-1],
            )
            for view, images in enumerate(batch.views)
        ]
        mixed = [mix(images, _partners(images)) for mix, images in zip(mixes, batch.views, strict=True)]
        logits = embed(self.model, torch.cat(mixed), self.micro_batch_size, views=len(mixed))
        others = _partners(labels)
        losses = []
        for mix, of_view in zip(mixes, logits.chunk(len(mixes)), strict=True):  # cross entropy is linear in the target
            own, other = (
                cross_entropy_share(of_view, target, label_smoothing=self.label_smoothing)
                for target in (labels, others)
            )
            losses.append(mix.own * own + (1 - mix.own) * other)
        return {"loss": torch.stack(losses).mean()}


class LabeledTransfer(nn.Module):
    """Learn labels while learning from a teacher: ``weight`` times cross entropy, plus what ``transfer`` gives.

    ``transfer.model`` gives what is compared with the teacher, and the logits, of one pass through the student: see
    :class:`ssl_transfer.models.WithLogits` and :class:`ssl_transfer.models.FeatureMaps`.
    """

    def __init__(self, transfer: Transfer, *, weight: float):
        super().__init__()
        self.transfer, self.weight = transfer, weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Classify all views of ``batch``, and compare student and teacher on them."""
        images, labels = torch.cat(batch.views), _labels_of(batch)
        parts = self.transfer.micro_batch_size
        student, logits = embed(self.transfer.model, images, parts, views=len(batch.views))
        transfer = self.transfer.compare(student, images, batch)
        classification = self.weight * cross_entropy_share(logits, labels.repeat(len(batch.views)))
        return {
            "loss": classification + transfer,
            "cross_entropy": classification.detach(),
            "transfer": transfer.detach(),
        }


def cross_entropy_share(
    logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"], *, label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """This process's share of the mean cross entropy over the rows of all processes, in float32 or wider."""
    total = cross_entropy(widen(logits), labels, label_smoothing=label_smoothing, reduction="sum")
    return total / (world_size() * len(logits))


def _labels_of(batch: Batch) -> Int64[Tensor, " n"]:
    if batch.labels is None:
        raise ValueError("classification needs labels, and these images have none: choose a data set that has.")
    return batch.labels


def _partners(rows: Tensor) -> Tensor:
    """For each row of this process the row of the global batch that stands as far from the batch's other end."""
    return gather_rows(rows).flip(0)[own_rows(len(rows))]
