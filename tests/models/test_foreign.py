"""Checkpoints of other tools: built with their own key names around their own architectures, then loaded by us.

Each function with ``@saved_by`` is one tool: the network as the tool builds it, wrapped and saved as the tool's saving
code does, with what its features and its projection are. The weights are random and so are the batch norms' statistics:
equal features mean that every weight found its place.
"""

import argparse
import pickle
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from ssl_transfer.catalog.checkpoint_formats import FORMATS
from ssl_transfer.models.foreign.loading import load_foreign
from ssl_transfer.models.foreign.reading import read_tensors

CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "image_size": 32}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
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
        {**CIFAR, "stem": "cifar"},
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
    return Case(content, model.encoder, projection, "resnet18", {**CIFAR, "image_size": 64})


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
    return Case(content, model.encoder, projection, "resnet50", {**CIFAR, "stem": "cifar"})


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
    return Case(content, features, model.backbone, "resnet18", {"image_size": 96}, unnormalized)


@saved_by("spijkervet-simclr")
def spijkervet() -> Case:
    model = nn.Module()
    model.encoder = without_fc(torchvision.models.resnet18())
    model.projector = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 64, bias=False))
    seen(model, 64)
    unnormalized = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    projection = nn.Sequential(model.encoder, model.projector)
    return Case(model.state_dict(), model.encoder, projection, "resnet18", SMALL, unnormalized)


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
    mean, std = (torch.tensor(preprocessing[key]).view(-1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected, loaded = case.features((images - mean) / std), model.features(images)
        assert expected.std(dim=0).mean() > 1e-4  # features that tell images apart
        torch.testing.assert_close(loaded, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())
        if case.projection is None:
            assert model.head is None and report.head is None and report.no_projection
        else:
            assert model.head is not None, report.no_projection
            expected, loaded = case.projection((images - mean) / std), model.outputs(images)["projection"]
            torch.testing.assert_close(loaded, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_every_format_has_a_case():
    assert {tool for tool, _ in CASES.values()} == {row.name for row in FORMATS}


def resnet18_file(folder: Path, change: Callable[[dict], dict] = dict) -> Path:
    path = folder / "resnet18.pth"
    torch.save({"state_dict": change(torchvision.models.resnet18().state_dict())}, path)
    return path


PLAIN = {**IMAGENET, "image_size": 64}


def refusal(path: Path, **options: Any) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        load_foreign(path, **{"backbone": "resnet18", **PLAIN, **options})
    sentence = str(refused.value)
    assert "\n" not in sentence and str(path) in sentence or "format" in sentence
    return sentence


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("kept", [0, 30, 2000, 0.5])
def test_a_truncated_file_is_one_sentence(tmp_path, as_zip, kept):
    path = tmp_path / "cut.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path, _use_new_zipfile_serialization=as_zip)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    assert "may be cut short" in refusal(path)


@pytest.mark.parametrize("content", [b"hello world", b"\x89PNG\r\n\x1a\n", b"{}", b"(dp0", b"PK\x03\x04"])
def test_a_file_of_another_kind_is_one_sentence(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    assert "cannot be read as a checkpoint" in refusal(path)


def test_a_cut_or_missing_safetensors_file_is_one_sentence(tmp_path):
    path = tmp_path / "model.safetensors"
    assert "there is no checkpoint" in refusal(path)
    save_file(torchvision.models.resnet18().state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    assert "may be cut short" in refusal(path)


def test_safetensors_load_too(tmp_path):
    network = seen(torchvision.models.resnet18(), 64)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    model, _ = load_foreign(tmp_path / "model.safetensors", backbone="resnet18", **PLAIN)
    assert torch.equal(model.backbone.network.conv1.weight, network.conv1.weight)


class Code:
    """What a hostile checkpoint holds: reading it with pickle makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return self.mark.touch, ()


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path, as_zip):
    path, mark = tmp_path / "hostile.ckpt", tmp_path / "ran"
    weights = torchvision.models.resnet18().state_dict()
    torch.save({"state_dict": weights, "hyper_parameters": Code(mark)}, path, _use_new_zipfile_serialization=as_zip)
    sentence = refusal(path)
    assert "would run code" in sentence and "weights_only=False" in sentence
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the same file, read carelessly
    assert mark.exists()


def test_bare_pickles_do_not_run(tmp_path):
    path, mark = tmp_path / "hostile.pkl", tmp_path / "ran"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps({"state_dict": Code(mark)}, protocol))
        refusal(path)
        assert not mark.exists()


def test_a_lightning_checkpoint_with_settings_of_odd_classes_is_refused_and_loads_when_converted_as_told(tmp_path):
    path = tmp_path / "last.ckpt"
    content = {"state_dict": torchvision.models.resnet18().state_dict(), "hyper_parameters": {"root": Path("data")}}
    torch.save(content, path)
    assert "pathlib" in (sentence := refusal(path))
    FILE, NEW_FILE = path, tmp_path / "weights.pth"  # noqa: N806  (the names in the sentence)
    order = re.search(r"by (torch\.save\(.*\)) and give", sentence)
    exec(order[1], {"torch": torch, "FILE": FILE, "NEW_FILE": NEW_FILE})
    load_foreign(NEW_FILE, backbone="resnet18", **PLAIN)


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
    in_file = [name for name in read_tensors(path) if name.startswith("state_dict.")]
    head, counters_of_encoder_k = 4, 20
    assert report.matched + head + len(report.left_over) + counters_of_encoder_k == len(in_file)
    assert all(name.startswith(("encoder_k.", "queue")) for name in report.left_over)
    assert report.head == (512, 512, 128)
    assert "projection head: 512 -> 512 -> 128" in report.lines()
    assert any("encoder_k (104)" in line for line in report.lines())
