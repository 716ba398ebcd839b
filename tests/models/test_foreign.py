"""Checkpoints of other tools: built with their own key names around their own architectures, then loaded by us.

Each function with ``@saved_by`` is one tool: the network as the tool builds it, wrapped and saved as the tool's saving
code does, with what its features and its projection are. The weights are random and so are the batch norms' statistics:
equal features mean that every weight found its place.
"""

import argparse
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_transfer.catalog.checkpoint_formats import FORMATS, by_name
from ssl_transfer.models import load_foreign
from ssl_transfer.models.foreign.reading import read_checkpoint
from tests.models.foreign_files import (
    CIFAR,
    IMAGENET,
    assert_same_features,
    cifar_resnet18,
    load_content,
    normalized,
    parallel,
    refusal,
    resnet18_file,
    seen,
    without_fc,
)

SMALL = {"image_size": 64}  # smaller than the tools' own 224 px, to be quick; ResNets take any size


@dataclass
class Case:
    content: Any  # what the tool hands to torch.save
    features: Callable[[Tensor], Tensor]  # of normalized images
    projection: Callable[[Tensor], Tensor] | None
    backbone: str
    options: dict  # what the recipe has to state
    normalization: dict | None = None  # what the format itself knows


CASES: dict[str, tuple[str, Callable[[], Case]]] = {}


def saved_by(tool: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def register(make: Callable[[], Case]) -> Callable[[], Case]:
        CASES[make.__name__] = tool, make
        return make

    return register


@saved_by("moco")
def moco_v1() -> Case:
    model = nn.Module()
    model.encoder_q, model.encoder_k = (torchvision.models.resnet18(num_classes=128) for _ in range(2))
    model.register_buffer("queue", torch.randn(128, 16))
    model.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    seen(model, 64)
    content = {"epoch": 200, "arch": "resnet18", "state_dict": parallel(model.state_dict()), "optimizer": {"state": {}}}
    return Case(content, without_fc(model.encoder_q), model.encoder_q, "resnet18", SMALL, IMAGENET)


@saved_by("moco")
def moco_v2() -> Case:
    model = nn.Module()
    for name in ("encoder_q", "encoder_k"):
        encoder = torchvision.models.resnet18(num_classes=128)
        encoder.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), encoder.fc)
        setattr(model, name, encoder)
    model.register_buffer("queue", torch.randn(128, 16))
    seen(model, 64)
    content = {"epoch": 800, "arch": "resnet18", "state_dict": parallel(model.state_dict())}
    encoder = model.encoder_q
    return Case(content, without_fc(encoder), encoder, "resnet18", SMALL, IMAGENET)


def moco_v3_mlp(layers: int, width: int, hidden: int, out: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for index in range(layers):
        last = index == layers - 1
        parts.append(nn.Linear(width if index == 0 else hidden, out if last else hidden, bias=False))
        parts.append(nn.BatchNorm1d(out if last else hidden, affine=not last))
        parts += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*parts)


@saved_by("moco-v3")
def moco_v3_resnet() -> Case:
    model = nn.Module()
    for name in ("base_encoder", "momentum_encoder"):
        encoder = torchvision.models.resnet18()
        encoder.fc = moco_v3_mlp(2, 512, 96, 32)
        setattr(model, name, encoder)
    model.predictor = moco_v3_mlp(2, 32, 96, 32)
    seen(model, 64)
    content = {"epoch": 1, "arch": "resnet18", "state_dict": parallel(model.state_dict()), "scaler": {"scale": 2.0}}
    encoder = model.base_encoder
    return Case(content, without_fc(encoder), encoder, "resnet18", SMALL, IMAGENET)


@saved_by("moco-v3")
def moco_v3_vit() -> Case:
    """ViT-Small as in vits.py: timm's class with 12 heads, where timm's own vit_small has 6."""
    model = nn.Module()
    for name in ("base_encoder", "momentum_encoder"):
        encoder = timm.models.VisionTransformer(
            img_size=32, patch_size=16, embed_dim=384, depth=12, num_heads=12, num_classes=96
        )
        encoder.head = moco_v3_mlp(3, 384, 96, 32)
        setattr(model, name, encoder)
    seen(model, 32)
    content = {"epoch": 300, "arch": "vit_small", "state_dict": parallel(model.state_dict())}
    encoder = model.base_encoder
    features = deepcopy(encoder)
    features.head = nn.Identity()
    return Case(content, features, encoder, "vit_small_patch16_224", {"image_size": 32}, IMAGENET)


@saved_by("simsiam")
def simsiam() -> Case:
    model = nn.Module()
    model.encoder = torchvision.models.resnet18(num_classes=64, zero_init_residual=True)
    model.encoder.fc = nn.Sequential(
        nn.Linear(512, 512, bias=False),
        nn.BatchNorm1d(512),
        nn.ReLU(inplace=True),
        nn.Linear(512, 512, bias=False),
        nn.BatchNorm1d(512),
        nn.ReLU(inplace=True),
        model.encoder.fc,
        nn.BatchNorm1d(64, affine=False),
    )
    model.predictor = nn.Sequential(nn.Linear(64, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 64))
    seen(model, 64)
    content = {"epoch": 100, "arch": "resnet18", "state_dict": parallel(model.state_dict())}
    return Case(content, without_fc(model.encoder), model.encoder, "resnet18", SMALL, IMAGENET)


def solo_projector() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 96), nn.ReLU(), nn.Linear(96, 32))


@saved_by("solo-learn")
def solo_learn() -> Case:
    model = nn.Module()
    model.backbone = without_fc(cifar_resnet18(padding=2))
    model.classifier = nn.Linear(512, 10)
    model.projector = solo_projector()
    model.momentum_backbone = without_fc(cifar_resnet18(padding=2))
    seen(model, 32)
    content = {"epoch": 999, "pytorch-lightning_version": "2.0.0", "state_dict": model.state_dict()}
    return Case(
        content,
        model.backbone,
        nn.Sequential(model.backbone, model.projector),
        "resnet18",
        {**CIFAR, "stem": "cifar", "format": "solo-learn"},
    )


@saved_by("solo-learn")
def solo_learn_of_2021() -> Case:
    model = nn.Module()
    model.encoder, model.classifier, model.projector = (
        without_fc(torchvision.models.resnet18()),
        nn.Linear(512, 10),
        solo_projector(),
    )
    seen(model, 64)
    content = {"epoch": 399, "state_dict": model.state_dict()}
    projection = nn.Sequential(model.encoder, model.projector)
    options = {**CIFAR, "image_size": 64, "format": "solo-learn"}
    return Case(content, model.encoder, projection, "resnet18", options)


class SupConBlock(nn.Module):
    """The bottleneck of SupContrast: a Sequential named shortcut, empty where the shape stays."""

    def __init__(self, channels: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != 4 * planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class SupConResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for layer, (planes, blocks, stride) in enumerate(((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), 1):
            parts = []
            for index in range(blocks):
                parts.append(SupConBlock(channels, planes, stride if index == 0 else 1))
                channels = 4 * planes
            setattr(self, f"layer{layer}", nn.Sequential(*parts))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


@saved_by("supcontrast")
def supcontrast() -> Case:
    """Saved with the settings of argparse, and the encoder alone in DataParallel."""
    model = nn.Module()
    model.encoder = SupConResNet50()
    model.head = nn.Sequential(nn.Linear(2048, 96), nn.ReLU(inplace=True), nn.Linear(96, 32))
    seen(model, 32)
    weights = {name.replace("encoder.", "encoder.module."): value for name, value in model.state_dict().items()}
    content = {"opt": argparse.Namespace(epochs=1000, syncBN=False), "model": weights, "optimizer": {}, "epoch": 1000}
    projection = nn.Sequential(model.encoder, model.head)
    options = {**CIFAR, "stem": "cifar", "format": "supcontrast"}
    return Case(content, model.encoder, projection, "resnet50", options)


@saved_by("supcontrast")
def supcontrast_linear_head() -> Case:
    case = supcontrast()
    weights = {name: value for name, value in case.content["model"].items() if not name.startswith("head.")}
    head = nn.Linear(2048, 32)
    case.content["model"] = weights | {f"head.{name}": value for name, value in head.state_dict().items()}
    case.projection = nn.Sequential(case.features, head)
    return case


@saved_by("sthalles-simclr")
def sthalles() -> Case:
    model = nn.Module()
    model.backbone = torchvision.models.resnet18(num_classes=128)
    model.backbone.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), model.backbone.fc)
    seen(model, 96)
    content = {"epoch": 100, "arch": "resnet18", "state_dict": model.state_dict(), "optimizer": {}}
    unnormalized = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    features = without_fc(model.backbone)
    options = {"image_size": 96, "format": "sthalles-simclr"}
    return Case(content, features, model.backbone, "resnet18", options, unnormalized)


@saved_by("spijkervet-simclr")
def spijkervet() -> Case:
    model = nn.Module()
    model.encoder = without_fc(torchvision.models.resnet18())
    model.projector = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 64, bias=False))
    seen(model, 64)
    unnormalized = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    projection = nn.Sequential(model.encoder, model.projector)
    options = {**SMALL, "format": "spijkervet-simclr"}
    return Case(model.state_dict(), model.encoder, projection, "resnet18", options, unnormalized)


def dino_head(width: int) -> nn.Module:
    head = nn.Module()
    head.mlp = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 32))
    head.last_layer = nn.utils.parametrizations.weight_norm(nn.Linear(32, 64, bias=False))
    return head


@saved_by("dino")
def dino_vit() -> Case:
    """The student in DistributedDataParallel, the teacher not, as where there is no batch norm."""

    def wrapper() -> nn.Module:
        model = nn.Module()
        model.backbone = timm.models.VisionTransformer(
            img_size=32, patch_size=16, embed_dim=192, depth=12, num_heads=3, num_classes=0
        )
        model.head = dino_head(192)
        return model

    student, teacher = wrapper(), seen(wrapper(), 32)
    content = {
        "student": parallel(student.state_dict()),
        "teacher": teacher.state_dict(),
        "optimizer": {},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny"),
        "dino_loss": {"center": torch.zeros(1, 64)},
    }
    options = {"image_size": 32}
    return Case(content, teacher.backbone, None, "vit_tiny_patch16_224", options, IMAGENET)


@saved_by("dino")
def dino_resnet() -> Case:
    model = nn.Module()
    model.backbone = without_fc(torchvision.models.resnet18())
    model.head = dino_head(512)
    seen(model, 64)
    weights = parallel(model.state_dict())
    return Case({"student": weights, "teacher": weights}, model.backbone, None, "resnet18", SMALL, IMAGENET)


class SwAVResNet50(torchvision.models.ResNet):
    """src/resnet50.py: a padding layer before a first convolution with less padding, the head within the network."""

    def __init__(self) -> None:
        super().__init__(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3])
        del self.fc
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 2, bias=False)
        self.projection_head = nn.Sequential(
            nn.Linear(2048, 96), nn.BatchNorm1d(96), nn.ReLU(inplace=True), nn.Linear(96, 32)
        )
        self.prototypes = nn.Linear(32, 300, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.padding(x)))))
        return self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))).flatten(1)


@saved_by("swav")
def swav() -> Case:
    model = seen(SwAVResNet50(), 64)
    content = {"epoch": 800, "state_dict": parallel(model.state_dict()), "optimizer": {}}
    projection = nn.Sequential(model, model.projection_head)
    return Case(content, model, projection, "resnet50", SMALL, IMAGENET | {"std": (0.228, 0.224, 0.225)})


@saved_by("swav")
def swav_published() -> Case:
    """The published file is the state dict itself."""
    case = swav()
    case.content = case.content["state_dict"]
    return case


@saved_by("vissl")
def vissl() -> Case:
    network = seen(torchvision.models.resnet50(), 64)
    trunk = {f"_feature_blocks.{name}": value for name, value in network.state_dict().items() if "fc." not in name}
    heads = {"0.clf.0.weight": torch.randn(32, 2048), "0.clf.0.bias": torch.randn(32)}
    model = {"model": {"trunk": trunk, "heads": heads}, "meters": {}}
    content = {"phase_idx": 3, "classy_state_dict": {"train": True, "base_model": model}}
    return Case(content, without_fc(network), None, "resnet50", SMALL, IMAGENET)


def lightly_model(backbone: nn.Module, width: int, head: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
    model = nn.Module()
    model.backbone, model.projection_head = backbone, head
    seen(model, 64)
    features = nn.Sequential(model.backbone, nn.Flatten())
    return model, features, nn.Sequential(features, model.projection_head)


@saved_by("lightly")
def lightly_simclr() -> Case:
    from lightly.models.modules import SimCLRProjectionHead

    resnet = torchvision.models.resnet18()
    backbone = nn.Sequential(*list(resnet.children())[:-1])
    model, features, projection = lightly_model(backbone, 512, SimCLRProjectionHead(512, 96, 32))
    content = {"epoch": 9, "pytorch-lightning_version": "2.1.0", "state_dict": model.state_dict(), "callbacks": {}}
    return Case(content, features, projection, "resnet18", {**CIFAR, "image_size": 64})


@saved_by("lightly")
def lightly_moco_pytorch() -> Case:
    """examples/pytorch: torch.save of the state dict; a torchvision ResNet for CIFAR as a Sequential."""
    from lightly.models.modules import MoCoProjectionHead

    backbone = nn.Sequential(*list(cifar_resnet18().children())[:-1])
    model, features, projection = lightly_model(backbone, 512, MoCoProjectionHead(512, 96, 32))
    model.backbone_momentum = deepcopy(model.backbone)
    options = {**CIFAR, "stem": "cifar"}
    return Case(model.state_dict(), features, projection, "resnet18", options)


@saved_by("lightly")
def lightly_resnet_generator() -> Case:
    """docs: ResNetGenerator as a Sequential, which leaves out the ReLU after the first batch norm."""
    from lightly.models import ResNetGenerator
    from lightly.models.modules import MoCoProjectionHead

    resnet = ResNetGenerator("resnet-18", 1, num_splits=2)
    backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1))
    model, features, projection = lightly_model(backbone, 512, MoCoProjectionHead(512, 96, 32))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in weights.items():  # a training step leaves each split its own, eval mode takes their mean
        if "running" in name and not name.startswith("projection_head"):
            value += torch.cat([torch.ones(len(value) // 2), -torch.ones(len(value) // 2)]) * 0.1
    content = {"state_dict": weights, "pytorch-lightning_version": "1.9.0"}
    return Case(content, features, projection, "resnet18", {**CIFAR, "stem": "cifar"})


@saved_by("lightly-dino")
def lightly_dino() -> Case:
    model = nn.Module()
    for role in ("student", "teacher"):
        setattr(model, f"{role}_backbone", nn.Sequential(*list(torchvision.models.resnet18().children())[:-1]))
        setattr(model, f"{role}_head", nn.Sequential(nn.Linear(512, 32)))
    seen(model, 64)
    features = nn.Sequential(model.teacher_backbone, nn.Flatten())
    options = {**CIFAR, "image_size": 64}
    return Case({"state_dict": model.state_dict()}, features, None, "resnet18", options)


@saved_by("plain")
def torchvision_network() -> Case:
    network = seen(torchvision.models.resnext50_32x4d(), 64)
    options = {**IMAGENET, "image_size": 64}
    return Case(network.state_dict(), without_fc(network), None, "resnext50_32x4d", options)


@saved_by("plain")
def timm_network() -> Case:
    network = seen(timm.create_model("convnext_atto", num_classes=10), 64)
    features = deepcopy(network)
    features.reset_classifier(0)
    content = {"state_dict": parallel(network.state_dict()), "arch": "convnext_atto"}
    return Case(content, features, None, "convnext_atto", {**IMAGENET, "image_size": 64})


class RepDistillerBlock(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or channels != planes:
            self.downsample = nn.Sequential(nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class RepDistillerResNet(nn.Module):
    def __init__(self, widths: tuple[int, int, int, int], blocks: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        for layer in (1, 2, 3):
            parts = [RepDistillerBlock(widths[layer - 1], widths[layer], 1 if layer == 1 else 2)]
            parts += [RepDistillerBlock(widths[layer], widths[layer], 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{layer}", nn.Sequential(*parts))
        self.fc = nn.Linear(widths[3], 100)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.avg_pool2d(self.layer3(self.layer2(self.layer1(x))), 8).flatten(1)


@saved_by("repdistiller")
def repdistiller() -> Case:
    network = seen(RepDistillerResNet((32, 64, 128, 256), 1), 32)
    content = {"epoch": 240, "model": network.state_dict(), "best_acc": torch.tensor(73.0), "optimizer": {}}
    return Case(content, network, None, "cifar_resnet8x4", CIFAR)


class CifarBlock(nn.Module):
    """Two convolutions and a shortcut without weights, He et al.'s option A: ``before`` of its zeros come first."""

    def __init__(self, channels: int, planes: int, stride: int, before: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.before = stride, before

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.avg_pool2d(x, 1, self.stride)
            zeros = torch.zeros(len(x), out.shape[1] - x.shape[1], *x.shape[2:])
            x = torch.cat([zeros[:, : self.before], x, zeros[:, self.before :]], 1)
        return F.relu(out + x)


class CifarResNet20(nn.Module):
    def __init__(self, around: bool):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        for layer, channels, planes in ((1, 16, 16), (2, 16, 32), (3, 32, 64)):
            before = (planes - channels) // 2 if around else 0
            first = CifarBlock(channels, planes, 1 if layer == 1 else 2, before)
            rest = (CifarBlock(planes, planes, 1, 0) for _ in range(2))
            setattr(self, f"layer{layer}", nn.Sequential(first, *rest))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3))


@saved_by("akamaster")
def akamaster() -> Case:
    network = seen(CifarResNet20(around=True), 32)
    content = {"best_prec1": 91.73, "state_dict": parallel(network.state_dict())}
    return Case(content, network, None, "cifar_resnet20", CIFAR)


@saved_by("resnext-densenet")
def resnext_densenet() -> Case:
    network = seen(CifarResNet20(around=False), 32)
    names = {"conv1": "conv_1_3x3", "bn1": "bn_1", "linear": "classifier"}
    parts = {"conv1": "conv_a", "bn1": "bn_a", "conv2": "conv_b", "bn2": "bn_b"}
    weights = {}
    for name, value in network.state_dict().items():
        first, *rest = name.replace("layer", "stage_").split(".")
        weights[".".join([names.get(first, first), *(parts.get(part, part) for part in rest)])] = value
    return Case({"epoch": 200, "state_dict": parallel(weights)}, network, None, "cifar_resnet20", CIFAR)


@saved_by("wrapped")
def lightning_module_of_ones_own() -> Case:
    model = nn.Module()
    model.net, model.classifier = without_fc(torchvision.models.resnet18()), nn.Linear(512, 5)
    seen(model, 64)
    content = {"epoch": 3, "state_dict": model.state_dict()}
    return Case(content, model.net, None, "resnet18", {**IMAGENET, "image_size": 64})


def save(case: Case, folder: Path) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(case.content, path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_features_equal_those_of_the_original_network(name, tmp_path):
    tool, make = CASES[name]
    case = make()
    model, report = load_foreign(save(case, tmp_path), backbone=case.backbone, **case.options)
    assert report.format == tool
    preprocessing = {**case.options, **(case.normalization or {})}
    images = torch.rand(4, 3, preprocessing["image_size"], preprocessing["image_size"])
    with torch.no_grad():
        expected, loaded = case.features(normalized(images, preprocessing)), model.features(images)
        assert expected.std(dim=0).mean() > 1e-4  # features that tell images apart
        torch.testing.assert_close(loaded, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())
        if case.projection is None:
            assert model.head is None and report.head is None and report.no_projection
        else:
            assert model.head is not None, report.no_projection
            expected = case.projection(normalized(images, preprocessing))
            loaded = model.outputs(images)["projection"]
            torch.testing.assert_close(loaded, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_every_format_has_a_case():
    assert {tool for tool, _ in CASES.values()} == {row.name for row in FORMATS}


@pytest.mark.parametrize(
    ("saved", "asked", "words"),
    [
        (
            "resnet18",
            "resnet34",
            r"lacks \d+ of the \d+ weights of resnet34, the first is layer1\.2\..* write backbone: resnet18",
        ),
        ("resnet34", "resnet18", r"of a larger network than resnet18: \d+ weights .* write backbone: resnet34"),
        ("resnet50", "resnet18", r"layer1\.0\.conv1\.weight of shape \(64, 64, 1, 1\).* write backbone: resnet50"),
        ("resnet18", "convnext_atto", r"lacks \d+ of the \d+ weights of convnext_atto, the first is stem"),
        ("resnet50", "wide_resnet50_2", r"of shape .*, where wide_resnet50_2 has"),
    ],
)
def test_a_wrong_architecture_is_one_sentence(tmp_path, saved, asked, words):
    path = tmp_path / "x.pth"
    torch.save(torchvision.models.get_model(saved).state_dict(), path)
    assert re.search(words, refusal(path, backbone=asked))


def test_the_other_stem_is_advised(tmp_path):
    assert "write stem: default" in refusal(resnet18_file(tmp_path), stem="cifar")


def test_a_missing_weight_is_named_with_its_nearest(tmp_path):
    def misspelled(weights: dict) -> dict:
        weights["layer2.0.conv_1.weight"] = weights.pop("layer2.0.conv1.weight")
        return weights

    sentence = refusal(resnet18_file(tmp_path, misspelled))
    assert "lacks 1 of the" in sentence and "the first is layer2.0.conv1.weight" in sentence
    assert "nearest it has are layer2.0.conv_1.weight" in sentence


def test_normalization_has_to_be_stated_where_the_tool_leaves_it_open(tmp_path):
    path = resnet18_file(tmp_path)
    with pytest.raises(ValueError, match="write mean, std, image_size as they were in its training"):
        load_foreign(path, backbone="resnet18")
    torch.save(parallel(without_fc(torchvision.models.resnet18()).state_dict(), "module.encoder_q."), path)
    model, _ = load_foreign(path, backbone="resnet18")
    assert model.backbone.preprocessing.mean == IMAGENET["mean"] and model.backbone.input_size == 224
    model, _ = load_foreign(path, backbone="resnet18", mean=(0.1, 0.2, 0.3))  # the recipe has the last word
    assert model.backbone.preprocessing.mean == (0.1, 0.2, 0.3)


def test_a_format_can_be_named_and_is_then_checked(tmp_path):
    path = resnet18_file(tmp_path, lambda weights: parallel(weights, "encoder_q."))
    assert load_foreign(path, backbone="resnet18", format="moco")[1].format == "moco"
    assert "no checkpoint of format dino" in refusal(path, format="dino")
    assert "choose one of auto, vissl, moco-v3" in refusal(path, format="mocco")


def test_the_report_accounts_for_every_weight_of_the_file(tmp_path):
    case = CASES["moco_v2"][1]()
    path = save(case, tmp_path)
    _, report = load_foreign(path, backbone="resnet18", image_size=64)
    in_file = [name for name in read_checkpoint(path).tensors if not name.endswith("num_batches_tracked")]
    head = 4
    assert report.matched + head + len(report.left_over) == len(in_file)
    assert all(name.startswith(("encoder_k.", "queue")) for name in report.left_over)
    assert report.head == (512, 512, 128)
    assert "The projection head is 512 -> 512 -> 128 wide." in report.lines()
    assert any("encoder_k (104)" in line for line in report.lines())


EVERYDAY = [name for name, (tool, _) in CASES.items() if by_name(tool).everyday]


@pytest.mark.parametrize("name", EVERYDAY)
def test_what_names_of_everyone_leave_open_is_asked_for(name, tmp_path):
    """Words such as encoder, head and classifier are in many programs' files, so no tool's habits are assumed."""
    tool, make = CASES[name]
    case = make()
    path, told = save(case, tmp_path), {**CIFAR, **case.options}
    del told["format"]
    if tool == "solo-learn" and "stem" in told:  # the padding of its 3x3 stem changes the features
        assert "write format: solo-learn, or format: plain" in refusal(path, backbone=case.backbone, **told)
        return
    model, report = load_foreign(path, backbone=case.backbone, **told)
    assert report.format == "wrapped" and not report.assumed
    assert_same_features(model.backbone.network, case.features, told["image_size"])
    assert model.head is None and f"write format: {tool}" in report.no_projection
    if case.normalization:
        with pytest.raises(ValueError, match=f"write mean, std .*or format: {tool} .* whose mean and std are known"):
            load_foreign(path, backbone=case.backbone, image_size=told["image_size"])


def test_what_is_assumed_of_a_tool_is_said(tmp_path):
    _, report = load_foreign(save(CASES["moco_v2"][1](), tmp_path), backbone="resnet18", mean=(0.5, 0.5, 0.5))
    (line,) = (line for line in report.lines() if line.startswith("Assumed"))
    assert line == (
        "Assumed, as moco does it: std (0.229, 0.224, 0.225); images of 224 px; "
        "ReLU between the layers of the projection head."
    )


def test_the_preprocessing_for_large_images_is_not_assumed_of_a_network_for_small_ones(tmp_path):
    content = {"state_dict": parallel(without_fc(cifar_resnet18()).state_dict(), "module.encoder_q.")}
    torch.save(content, tmp_path / "moco.pth")
    with pytest.raises(ValueError, match="write mean, std, image_size as they were in its training"):
        load_foreign(tmp_path / "moco.pth", backbone="resnet18", stem="cifar")


def test_a_small_transformer_of_moco_v3s_kind_has_twelve_heads_only_where_the_file_says_that_it_is_its_own(tmp_path):
    case = CASES["moco_v3_vit"][1]()
    heads = []
    for arch, options in (
        ("vit_small", {}),
        ("vit_small_patch16_224", {"format": "moco-v3"}),
        ("vit_small_patch16_224", {"format": "plain"}),
    ):
        network, report = load_content(
            {**case.content, "arch": arch}, tmp_path, backbone=case.backbone, image_size=32, **options
        )
        heads.append(network.blocks[0].attn.num_heads)
        assert ("12 heads of attention" in report.assumed) == (heads[-1] == 12)
    assert heads == [12, 12, 6]
    torch.save({**case.content, "arch": "vit_small_patch16_224"}, tmp_path / "other.pth")
    sentence = refusal(tmp_path / "other.pth", backbone=case.backbone, image_size=32)
    assert "12 heads of attention" in sentence and "write format: moco-v3, or format: plain" in sentence


@pytest.mark.parametrize("around", [True, False])
def test_where_the_zeros_of_shortcuts_without_weights_stand_is_asked_for(around, tmp_path):
    """Names that are neither tool's: the weights fit both."""
    network = seen(CifarResNet20(around), 32)
    weights = {name.replace("linear.", "fc."): value for name, value in network.state_dict().items()}
    load = partial(load_content, weights, tmp_path, backbone="cifar_resnet20", **CIFAR)
    with pytest.raises(ValueError, match="write format: akamaster .* or format: resnext-densenet if behind"):
        load()
    loaded, report = load(format="akamaster" if around else "resnext-densenet")
    assert_same_features(loaded, network, 32)
    assert report.assumed == (f"zeros {'on both sides of' if around else 'behind'} the channels in shortcuts",)


@pytest.mark.parametrize("name", ["akamaster", "resnext_densenet", "repdistiller"])
def test_the_order_of_a_cifar_resnets_weights_does_not_matter(name, tmp_path):
    """Safetensors sorts them."""
    case = CASES[name][1]()
    weights = case.content.get("state_dict") or case.content["model"]
    save_file({name.removeprefix("module."): weights[name] for name in weights}, tmp_path / "x.safetensors")
    model, report = load_foreign(tmp_path / "x.safetensors", backbone=case.backbone, **case.options)
    assert_same_features(model.backbone.network, case.features, 32)
    assert all(name.startswith(("linear.", "classifier.", "fc.")) for name in report.left_over)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("cifar_resnet32", r"this network has 4 more of shape \(16, 16, 3, 3\) as stages\.0\.4\.conv2\.weight"),
        ("cifar_resnet14", r"the checkpoint has 2 more of shape \(16, 16, 3, 3\) as layer1\.2\.conv2\.weight"),
        ("cifar_wrn16_1", r"this network has 1 more of shape \(32, 16, 1, 1\) as stages\.1\.0\.shortcut\.weight"),
        (
            "cifar_vgg8",
            r"the checkpoint has 1 more of shape \(16, 3, 3, 3\) as conv1\.weight, 6 more of shape \(16, 16, 3, 3\) as",
        ),
    ],
)
def test_which_layers_differ_is_said_of_cifar_networks(asked, words, tmp_path):
    path = save(CASES["akamaster"][1](), tmp_path)
    assert re.search(words, refusal(path, backbone=asked, **CIFAR))
