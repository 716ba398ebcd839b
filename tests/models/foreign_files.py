"""Checkpoints of other tools, written with random weights, and what loading them gives."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from ssl_transfer.models import load_foreign
from ssl_transfer.models.foreign.loading import LoadReport

CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "image_size": 32}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN = {**IMAGENET, "image_size": 64}


def seen(network: nn.Module, size: int) -> nn.Module:
    """Weights away from their initial values, batch norms with statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += (
            0.05 * parameter.data.std().nan_to_num(0.1) * torch.randn(parameter.shape, generator=generator)
        )
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = 0.1 * torch.randn(module.running_mean.shape, generator=generator)
            module.running_var = 0.5 + torch.rand(module.running_var.shape, generator=generator)
    return network.eval()


def parallel(weights: dict, prefix: str = "module.") -> dict:
    """What DistributedDataParallel makes of the names."""
    return {prefix + name: value for name, value in weights.items()}


def without_fc(network: nn.Module) -> nn.Module:
    network = deepcopy(network)
    network.fc = nn.Identity()
    return network


def cifar_resnet18(padding: int = 1) -> nn.Module:
    network = torchvision.models.resnet18()
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=padding, bias=False)
    network.maxpool = nn.Identity()
    return network


def resnet18_file(folder: Path, change: Callable[[dict], dict] = dict) -> Path:
    path = folder / "resnet18.pth"
    torch.save({"state_dict": change(torchvision.models.resnet18().state_dict())}, path)
    return path


def refusal(path: Path, **options: Any) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        load_foreign(path, **{"backbone": "resnet18", **PLAIN, **options})
    sentence = str(refused.value)
    assert "\n" not in sentence and str(path) in sentence or "format" in sentence
    return sentence


def normalized(images: Tensor, prepared: dict[str, Any]) -> Tensor:
    mean, std = (torch.tensor(prepared[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


def load_content(content: Any, folder: Path, **options: Any) -> tuple[Callable[[Tensor], Tensor], LoadReport]:
    """The features that a file with ``content`` gives, as a function of normalized images, and its report."""
    torch.save(content, folder / "content.pth")
    model, report = load_foreign(folder / "content.pth", **{**PLAIN, **options})
    return model.backbone.network, report


@torch.no_grad()
def assert_same_features(loaded: Callable, original: Callable, size: int, *, tolerance: float = 1e-6) -> None:
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = original(images)
    allowed = tolerance * expected.abs().max().item()
    assert expected.std(dim=0).mean() > 20 * allowed  # features that tell images apart
    torch.testing.assert_close(loaded(images), expected, rtol=tolerance, atol=allowed)
