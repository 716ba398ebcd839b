"""From the recipe's task and two networks to the module that is trained."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssl_transfer import config, losses, tasks
from ssl_transfer.data import Images
from ssl_transfer.losses.labels import label_loss
from ssl_transfer.models import EmbeddingModel, FeatureMaps, Frozen, Output, WithLogits
from ssl_transfer.training.schedules import constant, cosine


def build_task(
    recipe: config.Recipe,
    model: EmbeddingModel,
    teacher: EmbeddingModel | None,
    images: Images,
    *,
    steps_per_epoch: int,
) -> nn.Module:
    """The task of ``recipe``: ``model`` learns, from ``teacher`` if the task is a transfer.

    Raises:
        ValueError: the teacher does not have the output asked for, or a backbone gives no feature maps.
    """
    task, parts = recipe.task, recipe.train.micro_batch_size
    if isinstance(task, config.SimCLR):
        return tasks.SimCLR(model, temperature=task.temperature, micro_batch_size=parts)
    torch.manual_seed(recipe.seed + 1)  # adapters and queues: of the recipe, whatever was built before
    if isinstance(task, config.Metric):
        return _metric(task, model, images, parts)
    if isinstance(task, config.MoCo):
        return tasks.MoCo(
            model,
            queue_size=task.queue_size,
            temperature=task.temperature,
            momentum=_momentum(task, recipe.train.epochs * steps_per_epoch),
            symmetric=task.symmetric,
            micro_batch_size=parts,
        )
    if isinstance(task, config.MoCoV3):
        return tasks.MoCoV3(
            model,
            hidden_dim=task.hidden_dim,
            temperature=task.temperature,
            momentum=_momentum(task, recipe.train.epochs * steps_per_epoch),
            micro_batch_size=parts,
        )
    if isinstance(task, config.Classify):
        settings = task.model_dump(exclude={"kind"})
        return tasks.Classify(model, **settings, seed=recipe.seed, micro_batch_size=parts)
    assert teacher is not None
    transfer = _transfer(task, recipe, model, teacher, images)
    return transfer if task.cross_entropy is None else tasks.LabeledTransfer(transfer, weight=task.cross_entropy)


def _transfer(
    task: Any, recipe: config.Recipe, model: EmbeddingModel, teacher: EmbeddingModel, images: Images
) -> tasks.Transfer:
    """The transfer to ``model``; to its features or its logits where it also learns labels."""
    parts = recipe.train.micro_batch_size
    if isinstance(task, config.FitNet | config.AttentionTransfer | config.VID):
        maps = _map_loss(task), _map_channels(model, images), _map_channels(teacher, images)
        return tasks.FeatureMapTransfer(
            FeatureMaps(model), Frozen(FeatureMaps(teacher)), _pair(*maps), weight=task.weight
        )

    taught = Frozen(Output(teacher, task.teacher.output))
    width = teacher.num_features if task.teacher.output == "features" else teacher.embedding_dim
    student: nn.Module = model
    student_width = model.embedding_dim
    if task.labels:
        compared = "logits" if isinstance(task, config.SoftTargets) else "features"
        student = WithLogits(model, compared)
        student_width = model.num_features if compared == "features" else model.embedding_dim
    arguments = task.model_dump(exclude={"kind", *config.Transfer.model_fields})
    if isinstance(task, config.SEED):
        adapter = _adapter(student_width, width)
        return tasks.SEED(student, taught, adapter, teacher_width=width, **arguments, micro_batch_size=parts)
    if isinstance(task, config.SoftTargets):
        return tasks.SoftTargets(student, taught, _adapter(student_width, width), **arguments, micro_batch_size=parts)
    if isinstance(task, config.CRD):
        memory = losses.ContrastiveRepresentation(
            student_width,
            width,
            len(images),
            width=task.width,
            temperature=task.temperature,
            momentum=task.momentum,
        )
        return tasks.CRD(
            student,
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
        return tasks.RelationalTransfer(student, taught, loss, micro_batch_size=parts)
    # The rest are functions of both embeddings whose arguments have the names of the recipe's keys.
    weight = arguments.pop("weight")
    loss = partial(getattr(losses, task.kind), **arguments)
    relaxed = isinstance(task, config.RelaxedContrastive | config.RelaxedMultiSimilarity)
    return tasks.RelationalTransfer(student, taught, loss, weight=weight, tell_images=relaxed, micro_batch_size=parts)


def _momentum(task: config.MoCo | config.MoCoV3, total_steps: int) -> Callable[[int], float]:
    """The trailing copy's momentum as a function of the step, planned for all epochs as the learning rate is."""
    if task.final_momentum is None:
        return partial(constant, base=task.momentum)
    return partial(cosine, total_steps=total_steps, base=task.momentum, final=task.final_momentum)


def _metric(task: config.Metric, model: EmbeddingModel, images: Images, parts: int | None) -> nn.Module:
    if images.classes is None:
        raise ValueError(f"metric learning needs labels, and {images.name} {images.split} has none")
    loss = label_loss(task.loss, num_classes=images.classes, embedding_dim=model.embedding_dim, **task.settings)
    return tasks.MetricLearning(model, loss, freeze_batch_norm=task.freeze_batch_norm, micro_batch_size=parts)


def _rkd(student: Tensor, teacher: Tensor, *, anchors: slice, distance: float, angle: float) -> Tensor:
    by_distance = losses.rkd_distance(student, teacher, anchors=anchors)
    return distance * by_distance + angle * losses.rkd_angle(student, teacher, anchors=anchors)


def _adapter(student_width: int, width: int) -> nn.Module:
    """What brings the student to the teacher's width, trained with it and thrown away."""
    return nn.Identity() if student_width == width else nn.Linear(student_width, width)


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
