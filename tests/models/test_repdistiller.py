"""The CIFAR networks of RepDistiller: as many parameters, and with its weights the same outputs.

tests/golden/README.md says how the outputs of its code were made.
"""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from ssl_transfer.models.repdistiller import NAMES, repdistiller_weights
from ssl_transfer.models.small import ARCHITECTURES
from tests.models.repdistiller_fill import fill, images

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "repdistiller.npz")
# Counted on RepDistiller's networks with 100 classes.
PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "ResNet50": 23_705_252,
    "MobileNetV2": 812_836,
    "ShuffleV1": 949_258,
    "ShuffleV2": 1_355_528,
}


def published(name: str) -> dict[str, torch.Tensor]:
    """A state dict with RepDistiller's keys in their order, filled by a formula."""
    lines = [str(line).split() for line in GOLDEN[f"{name}/tensors"]]
    return fill({key: tuple(map(int, shape)) for key, *shape in lines})


def network(name: str) -> torch.nn.Module:
    return timm.create_model(NAMES[name], num_classes=100).eval()


def test_every_network_of_repdistiller_is_here():
    assert NAMES.keys() == PARAMETERS.keys()
    narrow = {f"cifar_vgg8_{width}" for width in ("half", "quarter", "eighth", "sixteenth")}
    assert {*NAMES.values(), *narrow, "tiny_convnet"} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_repdistillers(name):
    assert sum(parameter.numel() for parameter in network(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_with_repdistillers_weights_logits_and_feature_maps_are_its(name):
    ours = network(name)
    ours.load_state_dict(repdistiller_weights(ours, published(name)))
    with torch.no_grad():
        logits = ours(images())
        maps = ours.forward_intermediates(images(), intermediates_only=True)
    found = {"logits": logits} | {f"map{index}": part.mean((2, 3)) for index, part in enumerate(maps)}
    expected = {key.split("/")[1] for key in GOLDEN if key.startswith(f"{name}/")} - {"tensors"}
    assert found.keys() == expected
    for part, values in found.items():
        golden = torch.from_numpy(GOLDEN[f"{name}/{part}"])
        scale = golden.abs().max().item()
        torch.testing.assert_close(values / scale, golden / scale, rtol=0, atol=1e-5, msg=lambda text, p=part: p + text)


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match="the checkpoint has .* tensors, this network"):
        repdistiller_weights(network("resnet14"), published("resnet8"))
    with pytest.raises(ValueError, match=r"conv1.weight \(32, 3, 3, 3\) stands where this network has stem.weight"):
        repdistiller_weights(network("resnet8"), published("resnet8") | {"conv1.weight": torch.zeros(32, 3, 3, 3)})


def test_weights_in_another_order_are_refused():
    with pytest.raises(ValueError, match="in their original order"):
        repdistiller_weights(network("resnet8"), dict(sorted(published("resnet8").items())))


def test_weights_of_a_torch_without_counters_are_read():
    weights = {key: value for key, value in published("resnet8").items() if not key.endswith("num_batches_tracked")}
    ours = network("resnet8")
    ours.load_state_dict(repdistiller_weights(ours, weights))
    torch.testing.assert_close(ours.fc.weight, weights["fc.weight"])
