"""``model.pretrained: true``: which weights arrive where the model is not the one they were trained in."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry, get_pretrained_cfg

from ssl_transfer.models import create_backbone, timm_pretrained
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model


@pytest.fixture
def weights_of(tmp_path, monkeypatch):
    """Let timm find weights of a name in a file of ours, as if downloaded; its own code loads and adapts them."""

    def make(name: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        weights = timm.create_model(name, num_classes=1000).state_dict()
        save_file(weights, tmp_path / "weights.safetensors")
        local = replace(get_pretrained_cfg(name), file=str(tmp_path / "weights.safetensors"), custom_load=False)
        monkeypatch.setitem(_registry._model_pretrained_cfgs, name, local)
        return weights

    return make


def built(backbone: str, stem: str = "default", in_chans: int = 3, image_size: int = 32, head=None):
    torch.manual_seed(0)
    spec = ModelSpec(backbone, stem, in_chans, image_size, (0.5,) * in_chans, (0.25,) * in_chans, head=head)
    model = build_model(spec, pretrained=True)
    return model, model.backbone.network.state_dict()


def assert_same_but(given, expected, different: set[str]) -> None:
    assert given.keys() <= expected.keys()
    for key, value in given.items():
        same = value.shape == expected[key].shape and torch.equal(value, expected[key])
        assert same != (key in different), key


def test_all_but_the_classifier_arrives_and_the_head_is_new(weights_of):
    weights = weights_of("resnet18.a1_in1k")
    model, given = built("resnet18.a1_in1k", head=HeadSpec("embedding", 7))
    assert weights.keys() - given.keys() == {"fc.weight", "fc.bias"}
    assert_same_but(given, weights, set())
    assert model.head.linear.weight.shape == (7, 512)


def test_a_cifar_stem_makes_a_new_first_convolution_where_that_is_7x7_and_keeps_the_rest(weights_of):
    weights = weights_of("resnet18.a1_in1k")
    model, given = built("resnet18.a1_in1k", stem="cifar")
    assert given["conv1.weight"].shape == (64, 3, 3, 3) and given["conv1.weight"].std() > 0
    assert_same_but(given, weights, {"conv1.weight"})


def test_a_cifar_stem_keeps_a_first_convolution_of_3x3_and_takes_its_stride(weights_of):
    weights = weights_of("mobilenetv3_small_050.lamb_in1k")
    model, given = built("mobilenetv3_small_050.lamb_in1k", stem="cifar")
    assert model.backbone.network.conv_stem.stride == (1, 1)
    assert_same_but(given, weights, set())


def test_gray_images_get_the_first_convolution_summed_over_the_colors(weights_of):
    weights = weights_of("resnet18.a1_in1k")
    model, given = built("resnet18.a1_in1k", in_chans=1)
    torch.testing.assert_close(given["conv1.weight"], weights["conv1.weight"].sum(dim=1, keepdim=True))
    assert_same_but(given, weights, {"conv1.weight"})


def test_more_channels_repeat_the_colors_and_keep_the_sum(weights_of):
    weights = weights_of("resnet18.a1_in1k")
    model, given = built("resnet18.a1_in1k", in_chans=6)
    expected = torch.cat([weights["conv1.weight"]] * 2, dim=1) / 2
    torch.testing.assert_close(given["conv1.weight"], expected)
    assert_same_but(given, weights, {"conv1.weight"})


def test_a_transformer_for_another_size_gets_interpolated_positions(weights_of):
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    weights = weights_of(name)
    model, given = built(name, image_size=64)
    assert given["pos_embed"].shape == (1, 1 + 16, 192) and weights["pos_embed"].shape == (1, 1 + 196, 192)
    assert_same_but(given, weights, {"pos_embed"})
    torch.testing.assert_close(given["pos_embed"].mean(), weights["pos_embed"].mean(), atol=2e-3, rtol=0)


def test_a_name_without_weights_is_refused():
    with pytest.raises(ValueError, match="'cifar_resnet8' cannot be built for 32 px, 3 channels, pretrained True"):
        built("cifar_resnet8")


def test_where_the_hub_cannot_be_reached_the_answer_comes_at_once(monkeypatch):
    from huggingface_hub import constants

    from ssl_transfer.models import hub

    asked = []

    class Session:
        def head(self, address, timeout):
            asked.append(timeout)
            raise OSError("no network")

    monkeypatch.setattr(hub, "get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nothing/here")
    monkeypatch.setenv("HF_HOME", "/nothing/here")
    for load in (lambda: timm_pretrained("resnet10t"), lambda: from_timm("resnet10t")):
        with pytest.raises(ValueError, match="resnet10t.* cannot be (had|built)"):
            load()
    assert asked == [hub._SECONDS] * 2 and not constants.HF_HUB_OFFLINE
    timm.create_model("resnet10t")


def from_timm(name):
    return create_backbone(name, pretrained=True, image_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
