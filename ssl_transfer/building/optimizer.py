"""The recipe's optimizer, and its learning rate as a function of the step."""

from collections.abc import Callable
from functools import partial

from torch import nn
from torch.optim import Optimizer

from ssl_transfer import config
from ssl_transfer.schedules import constant, multi_step, warmup_cosine
from ssl_transfer.training.optim import create_optimizer


def build_optimizer(recipe: config.Recipe, task: nn.Module) -> Optimizer:
    """The recipe's optimizer of all that ``task`` trains."""
    optim = recipe.optim
    return create_optimizer(
        task,
        name=optim.name,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
        decay_all=optim.decay_all is not None,
        **(optim.lars.model_dump() if optim.lars else {}),
        lr_scales=recipe.task.lr_scales,
    )


def learning_rate(recipe: config.Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate as a function of the step."""
    optim = recipe.optim
    if optim.schedule == "constant":
        return partial(constant, base=optim.lr)
    if optim.milestones is not None:
        milestones = [epoch * steps_per_epoch for epoch in optim.milestones]
        return partial(multi_step, base=optim.lr, milestones=milestones)
    return partial(
        warmup_cosine,
        total_steps=recipe.train.epochs * steps_per_epoch,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        base=optim.lr,
        final=optim.final_lr,
    )
