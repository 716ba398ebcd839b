"""MoCo v3's projection and predictor, layer by layer as facebookresearch/moco-v3, moco/builder.py, builds them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_transfer.data import load_images
from ssl_transfer.models.checkpoint import ModelSpec, build_model, load_model, save_model
from ssl_transfer.tasks.sections.base import TaskInputs
from ssl_transfer.tasks.sections.pretraining import MoCoV3

# Linear layers have no bias; "BN" has weights, "bn" has none.
RESNET = ["linear", "BN", "relu", "linear", "bn"], ["linear", "BN", "relu", "linear"]
TRANSFORMER = ["linear", "BN", "relu", "linear", "BN", "relu", "linear", "bn"], ["linear", "BN", "relu", "linear", "bn"]


@pytest.fixture(scope="module")
def images():
    return load_images("digits", Path(), split="train", download=False)


def section(layers: int) -> MoCoV3:
    return MoCoV3(kind="moco_v3", projection_dim=6, hidden_dim=10, projection_layers=layers)


def spec_of(task: MoCoV3, images) -> ModelSpec:
    return ModelSpec("cifar_resnet8", "default", 1, 8, (0.3,), (0.4,), head=task.model_head(None, images))


def layers(head: nn.Module) -> list[str]:
    found = []
    for module in head.modules():
        if isinstance(module, nn.Linear):
            found.append("linear" if module.bias is None else "linear with bias")
        elif isinstance(module, nn.BatchNorm1d):
            found.append("BN" if module.affine else "bn")
        elif isinstance(module, nn.ReLU):
            found.append("relu")
    return found


@pytest.mark.parametrize(("count", "expected"), [(2, RESNET), (3, TRANSFORMER)])
def test_heads_are_the_authors(count, expected, images, tmp_path):
    spec = spec_of(section(count), images)
    model = build_model(spec)
    task = section(count).build(TaskInputs(model, None, images, seed=0, total_steps=10, micro_batch_size=None))
    assert (layers(model.head), layers(task.predictor)) == expected
    shapes = [tuple(layer.weight.shape) for layer in task.predictor.modules() if isinstance(layer, nn.Linear)]
    assert shapes == [(10, 6), (6, 10)]
    save_model(tmp_path, model, spec)
    loaded, _ = load_model(tmp_path)
    pixels = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded(pixels), model.eval()(pixels))


def test_a_run_from_before_loads_with_the_weights_of_its_last_norm(images, tmp_path):
    spec = spec_of(section(2), images)
    old = replace(spec, head=replace(spec.head, last_norm="affine"))
    save_model(tmp_path, build_model(old), old)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["head"]["last_norm"], content["sha256"]  # which were not written then
    (tmp_path / "config.json").write_text(json.dumps(content))
    loaded, _ = load_model(tmp_path)
    assert layers(loaded.head) == ["linear", "BN", "relu", "linear", "BN"]
