import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.features.identity import structure_hash, weights_hash
from ssl_transfer.models.backbones import create_backbone
from ssl_transfer.models.foreign.adaptations import moco_v3_attention, no_first_activation

ROOT = Path(__file__).parents[2]


def test_the_hash_is_of_every_parameter_and_buffer_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    plain = weights_hash(model)
    assert weights_hash(model) == plain and len(plain) == 16
    with torch.no_grad():
        model[1].running_mean[2] += 1e-6
    assert weights_hash(model) != plain
    assert weights_hash(nn.Sequential(nn.ReLU(), *model)) != weights_hash(model)


def backbone(name, stem="default"):
    torch.manual_seed(0)
    return create_backbone(name, stem=stem, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_a_stem_of_another_stride_has_the_same_weights_and_another_structure():
    plain, small = backbone("mobilenetv3_small_100"), backbone("mobilenetv3_small_100", stem="cifar")
    assert weights_hash(plain) == weights_hash(small)
    assert structure_hash(plain) != structure_hash(small)


@pytest.mark.parametrize(
    "name, adapt",
    [
        ("resnet18", no_first_activation),
        ("vit_small_patch16_224", moco_v3_attention),
        ("resnet18", lambda network: setattr(network.bn1, "eps", 1e-3)),
        ("resnet18", lambda network: network.reset_classifier(0, "max")),
    ],
)
def test_what_changes_a_network_and_not_its_weights_changes_its_structure(name, adapt):
    plain, adapted = backbone(name), backbone(name)
    assert structure_hash(plain) == structure_hash(adapted)
    adapt(adapted.network)
    assert weights_hash(plain) == weights_hash(adapted)
    assert structure_hash(plain) != structure_hash(adapted)


NAMES = ["cifar_resnet8", "resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "convnext_atto", "densenet121"]


@pytest.mark.slow
def test_the_structure_is_the_same_in_another_process():
    code = f"from tests.features.test_identity import *; print(*map(structure_hash, map(backbone, {NAMES})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [structure_hash(backbone(name)) for name in NAMES], done.stderr


@pytest.mark.parametrize("synchronize", [synchronize_batch_norm, convert_sync_batchnorm])
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])  # timm's plain batch norms, and its fused ones
def test_statistics_over_several_processes_are_the_same_structure(name, synchronize):
    network = backbone(name)
    alone = structure_hash(network.train())
    assert structure_hash(synchronize(network).eval()) == alone
