"""From the recipe's task and two networks to the module that is trained."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssl_transfer import config, losses, tasks
from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel, FeatureMaps, Frozen, Output


def build_task(
    recipe: config.Recipe, model: EmbeddingModel, teacher: EmbeddingModel | None, images: Images
) -> nn.Module:
    """The task of ``recipe``: ``model`` learns, from ``teacher`` if the task is a transfer.

    Raises:
        ValueError: the teacher does not have the output asked for, or a backbone gives no feature maps.
    """
    task, parts = recipe.task, recipe.train.micro_batch_size
    if isinstance(task, config.SimCLR):
        return tasks.SimCLR(model, temperature=task.temperature, micro_batch_size=parts)
    assert teacher is not None
    torch.manual_seed(recipe.seed + 1)  # adapters and queues: of the recipe, whatever was built before
    if isinstance(task, config.FitNet | config.AttentionTransfer | config.VID):
        maps = _map_loss(task), _map_channels(model, images), _map_channels(teacher, images)
        return tasks.FeatureMapTransfer(
            FeatureMaps(model), Frozen(FeatureMaps(teacher)), _pair(*maps), weight=task.weight
        )

    taught = Frozen(Output(teacher, task.teacher.output))
    width = teacher.num_features if task.teacher.output == "features" else teacher.embedding_dim
    arguments = task.model_dump(exclude={"kind", "teacher"}) | {"micro_batch_size": parts}
    if isinstance(task, config.SEED):
        return tasks.SEED(model, taught, _adapter(model, width), teacher_width=width, **arguments)
    if isinstance(task, config.SoftTargets):
        return tasks.SoftTargets(model, taught, _adapter(model, width), **arguments)
    if isinstance(task, config.CRD):
        memory = losses.ContrastiveRepresentation(
            model.embedding_dim,
            width,
            len(images),
            width=task.width,
            temperature=task.temperature,
            momentum=task.momentum,
        )
        return tasks.CRD(
            model,
            taught,
            memory,
            dataset_size=len(images),
            negatives=task.negatives,
            seed=recipe.seed,
            weight=task.weight,
            micro_batch_size=parts,
        )
    if isinstance(task, config.RKD):
        loss: Callable[..., Tensor] = partial(_rkd, distance=task.distance_weight, angle=task.angle_weight)
        return tasks.RelationalTransfer(model, taught, loss, micro_batch_size=parts)
    # The rest are functions of both embeddings whose arguments have the names of the recipe's keys.
    settings = task.model_dump(exclude={"kind", "teacher", "weight"})
    loss = partial(getattr(losses, task.kind), **settings)
    relaxed = isinstance(task, config.RelaxedContrastive | config.RelaxedMultiSimilarity)
    return tasks.RelationalTransfer(
        model, taught, loss, weight=task.weight, tell_images=relaxed, micro_batch_size=parts
    )


def _rkd(student: Tensor, teacher: Tensor, *, anchors: slice, distance: float, angle: float) -> Tensor:
    by_distance = losses.rkd_distance(student, teacher, anchors=anchors)
    return distance * by_distance + angle * losses.rkd_angle(student, teacher, anchors=anchors)


def _adapter(model: EmbeddingModel, width: int) -> nn.Module:
    """What brings the student to the teacher's width, trained with it and thrown away."""
    return nn.Identity() if model.embedding_dim == width else nn.Linear(model.embedding_dim, width)


def _map_loss(task: Any) -> Callable[[int, int], Callable[..., Tensor]]:
    if isinstance(task, config.FitNet):
        return losses.FitNet
    if isinstance(task, config.VID):
        return losses.VID
    return lambda student_channels, teacher_channels: losses.attention_transfer


@torch.no_grad()
def _map_channels(model: EmbeddingModel, images: Images) -> list[int]:
    """Channels of a model's feature maps, by running it on one image."""
    was_training = model.training
    device = next(model.parameters()).device
    maps = model.eval().backbone.feature_maps(images.pixels[:1].to(device).float() / 255)
    model.train(was_training)
    return [feature_map.shape[1] for feature_map in maps]


def _pair(
    loss: Callable[[int, int], Callable[..., Tensor]], student: list[int], teacher: list[int]
) -> list[Callable[..., Tensor]]:
    """One loss for each of the deepest maps that both networks have."""
    count = min(len(student), len(teacher))
    return [loss(ours, theirs) for ours, theirs in zip(student[-count:], teacher[-count:], strict=True)]
