"""A step of any task of simulated_cuda/steps.py, built as a run builds it, on any device and in any precision."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ssl_transfer import config, recipe
from ssl_transfer.data import Batch
from tests.simulated_cuda import steps


def load(folder: Path, name: str, *overrides: str) -> config.Recipe:
    """The recipe of one of ``steps.TASKS``, in float32; ``steps.prepare(folder)`` has made its images."""
    file = folder / f"{name.replace(' ', '-')}.yaml"
    file.write_text(json.dumps(steps.recipe_of(name, folder, "cifar_resnet8")))
    return config.load(file, ["train.precision=full", *overrides])


class Handed(Exception):
    """What a run hands to the training loop."""


def handed(loaded: config.Recipe) -> tuple[nn.Module, Any]:
    """The task of a run, on its device, and the function from a step to its batch."""

    def hand(task: nn.Module, batch: Any, *_: Any, **__: Any) -> NoReturn:
        raise Handed(task, batch)

    with patch.object(recipe, "fit", hand), patch.object(recipe, "draw_views", lambda batches, path: None):
        try:
            recipe.run(loaded, stop=lambda step: False)
        except Handed as found:
            torch.backends.cudnn.benchmark = False  # to look for the fastest way takes longer than the few steps here
            return found.args
    raise AssertionError("the run was over before the loop began")


def moved(batch: Batch, device: str, dtype: torch.dtype) -> Batch:
    def to(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)

    remembered = None if batch.remembered is None else tuple(map(to, batch.remembered))
    views = tuple(map(to, batch.views))
    return replace(batch, views=views, index=to(batch.index), labels=to(batch.labels), remembered=remembered)


def step(
    task: nn.Module,
    batch: Batch,
    device: str,
    dtype: torch.dtype,
    *,
    autocast: bool = False,
    change: Callable[[nn.Module], None] = lambda task: None,
) -> tuple[Tensor, Tensor]:
    """The loss of a copy of ``task`` and the gradient of all its parameters in one row, as float64 on the CPU."""
    task = deepcopy(task).to(device, dtype).train()
    change(task)
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        loss = task(moved(batch, device, dtype))["loss"]
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return loss.detach().cpu().double(), torch.cat([gradient.flatten() for gradient in found]).cpu().double()
