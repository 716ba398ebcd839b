"""From the recipe's task and two networks to the module that is trained."""

from collections.abc import Sequence

import torch
from torch import nn

from ssl_transfer import config
from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.tasks.sections.base import TaskInputs


def build_task(
    recipe: config.Recipe,
    model: EmbeddingModel,
    teachers: Sequence[EmbeddingModel],
    images: Images,
    *,
    steps_per_epoch: int,
) -> nn.Module:
    """The task of ``recipe``: ``model`` learns from ``images``, and from ``teachers`` if the task is a transfer.

    Raises:
        ValueError: a teacher does not have the output asked for, or a backbone gives no feature maps.
    """
    torch.manual_seed(recipe.seed + 1)  # adapters and queues: of the recipe, whatever was built before
    inputs = TaskInputs(
        model,
        teachers,
        images,
        seed=recipe.seed,
        total_steps=recipe.train.epochs * steps_per_epoch,
        micro_batch_size=recipe.train.micro_batch_size,
    )
    return recipe.task.build(inputs)
