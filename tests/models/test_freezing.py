"""Frozen stages stay as they were, to the bit, and cost the optimizer nothing; the others train."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ssl_transfer import config
from ssl_transfer.building.model import untrained
from ssl_transfer.errors import UserError
from ssl_transfer.models import AveragedModel, EmbeddingHead, EmbeddingModel, create_backbone
from ssl_transfer.models.checkpoint import ModelSpec, build_model
from ssl_transfer.models.freezing import freeze_stages, stage_count
from ssl_transfer.training.optim import create_optimizer

ROOT = Path(__file__).parents[2]
RGB = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "image_size": 32}

# Backbone, its stages, and how the parameters of the stem and the first two stages begin.
DIVIDED = {
    "resnet10t": (4, ("conv1.", "bn1.", "layer1.", "layer2.")),
    "mobilenetv3_small_050": (6, ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")),
    "convnext_atto": (4, ("stem.", "stages.0.", "stages.1.")),
    "vit_tiny_patch16_224": (12, ("cls_token", "pos_embed", "patch_embed.", "blocks.0.", "blocks.1.")),
    "swin_tiny_patch4_window7_224": (4, ("patch_embed.", "layers.0.", "layers.1.")),
    "pvt_v2_b0": (4, ("patch_embed.", "stages.0.", "stages.1.")),
}


def train_steps(model: nn.Module, steps: int, name: str = "adamw") -> torch.optim.Optimizer:
    """Train as the engine does: everything is put in training mode, all that takes gradients is optimized."""
    model.train()
    optimizer = create_optimizer(model, name=name, lr=0.1, weight_decay=0.5)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        loss = F.mse_loss(model(torch.rand(4, 3, 32, 32, generator=generator)), torch.ones(4, 8))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("name", DIVIDED)
def test_frozen_stages_stay_to_the_bit_and_the_others_train(name):
    torch.manual_seed(0)
    backbone = create_backbone(name, **RGB, drop_path=0.1)
    stages, beginnings = DIVIDED[name]
    assert stage_count(backbone) == stages
    freeze_stages(backbone, 2)
    model = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=8))
    before = deepcopy(model.state_dict())
    train_steps(model, steps=3)

    prefix = "backbone.network."
    frozen = {key for key in before if key.removeprefix(prefix).startswith(beginnings)}
    assert 5 < len(frozen) < len(before)
    for key, after in model.state_dict().items():
        if key in frozen:
            assert torch.equal(after, before[key]), f"{key} changed"
    parameters = dict(model.named_parameters())
    assert {key for key, parameter in parameters.items() if not parameter.requires_grad} == frozen & parameters.keys()
    for key in parameters.keys() - frozen:  # biases of attention to a single token get no gradient, nor weight decay
        if parameters[key].ndim > 1 and key.endswith(".weight"):
            assert not torch.equal(parameters[key], before[key]), f"{key} did not train"


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_the_optimizer_holds_nothing_of_what_is_frozen(name):
    backbone = create_backbone(name, **RGB)
    freeze_stages(backbone, 2)
    model = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=8))
    optimizer = train_steps(model, steps=1)
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(optimizer.state) == len(optimized)


def test_frozen_layers_stay_in_eval_mode_whoever_switches_to_training():
    backbone = create_backbone("resnet10t", **RGB)
    freeze_stages(backbone, 1)
    task = nn.ModuleList([EmbeddingModel(backbone)]).train()
    network = backbone.network
    assert not network.bn1.training and not network.layer1.training and not network.layer1[0].bn1.training
    assert network.layer2.training and network.layer4[0].bn1.training and task.training
    assert not backbone.eval().network.layer4.training


def test_features_of_frozen_stages_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    backbone = create_backbone("resnet10t", **RGB)
    freeze_stages(backbone, 4)
    images = torch.rand(6, 3, 32, 32)
    torch.testing.assert_close(backbone.train()(images)[:2], backbone(images[:2]))


def test_zero_stages_freeze_the_stem_alone():
    backbone = create_backbone("resnet10t", **RGB)
    freeze_stages(backbone, 0)
    frozen = {name for name, parameter in backbone.network.named_parameters() if not parameter.requires_grad}
    assert frozen and all(name.startswith(("conv1.", "bn1.")) for name in frozen)


def test_an_averaged_copy_keeps_the_frozen_weights_to_the_bit():
    torch.manual_seed(0)
    backbone = create_backbone("resnet10t", **RGB)
    freeze_stages(backbone, 2)
    model = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=8))
    before = deepcopy(backbone.network.layer2.state_dict())
    average = AveragedModel(model)
    for _ in range(3):
        train_steps(model, steps=1)
        average.update(model, momentum=0.9)
    for key, value in average.module.backbone.network.layer2.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("stages", [-1, 5])
def test_a_number_of_stages_that_is_not_there_is_refused(stages):
    backbone = create_backbone("resnet10t", **RGB)
    with pytest.raises(
        ValueError, match=f"'resnet10t' has 4 stages after its stem: freeze 0 .* to 4 of them, not {stages}"
    ):
        freeze_stages(backbone, stages)


def test_ddp_trains_what_is_not_frozen(free_port):
    backbone = create_backbone("resnet10t", **RGB)
    freeze_stages(backbone, 2)
    model = EmbeddingModel(backbone, EmbeddingHead(backbone.num_features, embedding_dim=8))
    before = deepcopy(model.state_dict())
    dist.init_process_group("gloo", f"tcp://localhost:{free_port}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        train_steps(wrapped, steps=2)  # the second step is refused where a parameter that takes gradients got none
    finally:
        dist.destroy_process_group()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and not {key for key in changed if ".layer1." in key or ".layer2." in key}


def test_a_recipe_freezes_its_model(monkeypatch):
    monkeypatch.setattr("ssl_transfer.building.model.build_model", lambda spec, pretrained: build_model(spec))
    loaded = recipe(freeze=1, pretrained=True)
    model = untrained(loaded, ModelSpec("resnet10t", "default", 3, **RGB))
    frozen = {name.split(".")[2] for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"freeze": 1}, "freeze keeps the weights that training starts from: set pretrained: true as well"),
        (
            {"freeze": 1, "pretrained": True, "stem": "cifar"},
            "freeze includes the stem, and stem: cifar makes a new one",
        ),
        ({"freeze": -1, "pretrained": True}, "freeze"),
    ],
)
def test_a_recipe_that_would_freeze_random_weights_is_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        recipe(**options)


def recipe(**model) -> config.Recipe:
    overrides = [f"model.{key}={str(value).lower()}" for key, value in model.items()]
    return config.load(ROOT / "recipes" / "digits" / "simclr.yaml", ["model.backbone=resnet10t", *overrides])


class Undivided(nn.Linear):
    """A network whose patterns match none of its weights, as LeViT's of older versions of timm."""

    def __init__(self):
        super().__init__(2, 2)

    def group_matcher(self, coarse=False):
        return {"stem": r"^nothing", "blocks": r"^blocks\.(\d+)"}


@pytest.mark.parametrize("network", [nn.Sequential(nn.Flatten()), Undivided()])
def test_a_network_that_timm_does_not_divide_is_refused(network):
    backbone = create_backbone("resnet10t", **RGB)
    backbone.network = network
    with pytest.raises(ValueError, match="'resnet10t' is not divided into stages, so none can be frozen"):
        freeze_stages(backbone, 1)
