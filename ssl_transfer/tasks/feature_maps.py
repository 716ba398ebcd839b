"""Transfer of feature maps: the deepest maps of both networks are paired, and compared image by image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_transfer.data import Batch, Images
from ssl_transfer.distributed import world_size
from ssl_transfer.models import EmbeddingModel, FeatureMaps, Frozen
from ssl_transfer.tasks.transfer import Transfer


class FeatureMapTransfer(Transfer):
    """Train ``model`` on the teacher's feature maps: the deepest maps of both are paired, from the last one upwards.

    ``model`` and ``teacher`` give (maps, embedding), as :class:`ssl_transfer.models.FeatureMaps` does. ``losses`` has
    one loss for each pair, shallow to deep, ``loss(student_map, teacher_map, rows=rows_of_the_global_batch)``; they
    are summed.
    """

    micro_batch_size = None  # maps are compared image by image: a smaller batch is the same loss

    def __init__(self, model: nn.Module, teacher: Frozen, losses: Sequence[Callable[..., Tensor]], *, weight: float):
        super().__init__()
        self.model, self.teachers, self.weight = model, nn.ModuleList([teacher]), weight
        self.losses = list(losses)
        self.adapters = nn.ModuleList(loss for loss in losses if isinstance(loss, nn.Module))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compare the paired maps on all views of ``batch``."""
        images = torch.cat(batch.views)
        maps, embedding = self.model(images)
        # No loss reaches the layers behind the last map (a MobileNet's last convolution, a head): they get a gradient
        # of zero, where DDP would wait for one that never comes.
        return {"loss": self.compare(maps, images, batch) + 0.0 * embedding.float().sum()}

    def compare(self, student: Sequence[Tensor], images: Tensor, batch: Batch) -> Tensor:  # type: ignore[override]
        """The sum over the pairs of maps."""
        rows, teacher = world_size() * len(images), self.teachers[0](images)[0]
        pairs = zip(self.losses, student[-len(self.losses) :], teacher[-len(self.losses) :], strict=True)
        return self.weight * torch.stack([loss(ours, theirs, rows=rows) for loss, ours, theirs in pairs]).sum()


def transfer_of_maps(
    model: EmbeddingModel,
    teacher: EmbeddingModel,
    images: Images,
    loss: Callable[[int, int], Callable[..., Tensor]],
    *,
    weight: float,
) -> FeatureMapTransfer:
    """Pair as many of the deepest maps as both networks have; ``loss`` makes the loss of a pair from its channels.

    Raises:
        ValueError: a backbone gives no feature maps.
    """
    ours, theirs = _channels(model, images), _channels(teacher, images)
    count = min(len(ours), len(theirs))
    losses = [loss(own, others) for own, others in zip(ours[-count:], theirs[-count:], strict=True)]
    return FeatureMapTransfer(FeatureMaps(model), Frozen(FeatureMaps(teacher)), losses, weight=weight)


@torch.no_grad()
def _channels(model: EmbeddingModel, images: Images) -> list[int]:
    """Channels of a model's feature maps, by running it on one image."""
    was_training = model.training
    device = next(model.parameters()).device
    maps = model.eval().backbone.feature_maps(images.pixels[:1].to(device).float() / 255)
    model.train(was_training)
    return [feature_map.shape[1] for feature_map in maps]
