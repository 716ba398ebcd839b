import pytest
import timm
import torch
from torch import nn

from ssl_transfer.models.blocks import BasicBlock, WideBlock
from ssl_transfer.models.small import ARCHITECTURES

# Millions of parameters with 100 classes, as the distillation literature prints them.
PUBLISHED_MILLIONS = {
    "cifar_resnet20": 0.28,
    "cifar_resnet32": 0.47,
    "cifar_resnet56": 0.86,
    "cifar_resnet110": 1.74,
    "cifar_resnet8x4": 1.23,
    "cifar_resnet32x4": 7.43,
    "cifar_wrn16_2": 0.70,
    "cifar_wrn40_1": 0.57,
    "cifar_wrn40_2": 2.26,
}


@pytest.mark.parametrize(("name", "millions"), PUBLISHED_MILLIONS.items())
def test_parameter_count_is_the_published_one(name, millions):
    network = timm.create_model(name, num_classes=100)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_resnet_has_the_depth_of_its_name(depth):
    modules = timm.create_model(f"cifar_resnet{depth}").modules()
    on_main_path = [m for m in modules if isinstance(m, nn.Linear) or getattr(m, "kernel_size", None) == (3, 3)]
    assert len(on_main_path) == depth


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_network_keeps_timms_conventions(name):
    network = timm.create_model(name, num_classes=7, in_chans=1).eval()
    images = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        last_map = network.forward_features(images)
        final, maps = network.forward_intermediates(images)
        pooled = network.forward_head(last_map, pre_logits=True)
        torch.testing.assert_close(network(images), network.get_classifier()(pooled))
        torch.testing.assert_close(final, last_map)
        network.reset_classifier(0)
        torch.testing.assert_close(network(images), pooled)
        shallow = network.forward_intermediates(images, indices=[0], stop_early=True, intermediates_only=True)
    assert pooled.shape == (2, network.num_features)
    assert [(m.shape[1], 16 // m.shape[-1]) for m in maps] == [
        (info["num_chs"], info["reduction"]) for info in network.feature_info
    ]
    torch.testing.assert_close(shallow, maps[:1])
    network.reset_classifier(5, "max")
    torch.testing.assert_close(network(images), network.fc(last_map.amax((2, 3))))


def test_normalized_intermediate_is_the_last_feature_map():
    network = timm.create_model("cifar_wrn16_2").eval()
    images = torch.rand(2, 3, 32, 32)
    final, maps = network.forward_intermediates(images, norm=True)
    torch.testing.assert_close(maps[-1], final)
    assert (network.forward_intermediates(images)[1][-1] < 0).any(), "raw maps are before the last ReLU"


@pytest.mark.parametrize("block", [BasicBlock, WideBlock])
def test_block_with_a_zero_residual_is_its_shortcut(block):
    images = torch.rand(2, 8, 6, 6)  # positive, so that the last ReLU of a basic block changes nothing
    same = block(8, 8, 1).eval()
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(images), images)
    assert block(8, 16, 2)(images).shape == (2, 16, 3, 3)


def test_tiny_network_stays_tiny():
    assert sum(parameter.numel() for parameter in timm.create_model("tiny_convnet").parameters()) < 400_000


def test_there_are_no_pretrained_weights():
    with pytest.raises(RuntimeError, match="No pretrained weights"):
        timm.create_model("cifar_resnet20", pretrained=True)
