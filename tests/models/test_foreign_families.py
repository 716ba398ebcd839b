"""Files of families of networks as their authors published them, at whatever size of images a teacher is used."""

import importlib
import inspect
import re

import pytest
import timm
import timm.models
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from ssl_transfer.models import load_foreign
from ssl_transfer.models.foreign.spelling import published_conversion
from tests.models.foreign_files import PLAIN, assert_same_features, load_content, parallel, refusal, seen

VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return seen(timm.create_model(VIT, num_classes=0, img_size=96), 96)


def at_size(name: str, size: int, weights: dict) -> nn.Module:
    """timm's own network for images of ``size``, with timm's interpolation of ``weights``."""
    network = timm.create_model(name, num_classes=0, img_size=size).eval()
    network.load_state_dict(checkpoint_filter_fn(dict(weights), network))
    return network


@pytest.mark.parametrize("size", [32, 64, 160])
@pytest.mark.parametrize("container", ["plain", "dino"])
def test_positions_are_interpolated_as_timm_does_it(container, size, vit, tmp_path):
    weights = vit.state_dict()
    if container == "dino":
        head = {"head.mlp.0.weight": torch.zeros(3, 3)}
        content = {"teacher": parallel(weights, "backbone.") | head, "student": parallel(weights, "module.backbone.")}
    else:
        content = weights
    loaded, report = load_content(content, tmp_path, backbone=VIT, image_size=size)
    assert_same_features(loaded, at_size(VIT, size, weights), size)
    assert report.resized == ("pos_embed",)
    assert "Interpolated to the size of the images: pos_embed." in report.lines()


def test_nothing_is_interpolated_at_the_size_of_the_training(vit, tmp_path):
    loaded, report = load_content(vit.state_dict(), tmp_path, backbone=VIT, image_size=96)
    assert_same_features(loaded, vit, 96, tolerance=0)
    assert report.resized == () and report.left_over == ()


def test_positions_for_a_size_that_patches_do_not_fill_are_those_of_the_next(vit, tmp_path):
    torch.save(vit.state_dict(), tmp_path / "x.pth")
    model, _ = load_foreign(tmp_path / "x.pth", backbone=VIT, **{**PLAIN, "image_size": 40})
    assert model.backbone.input_size == 48 and model.backbone.network.pos_embed.shape[1] == 1 + 9


def test_patches_of_another_size_are_another_network(vit, tmp_path):
    """timm would interpolate the kernels, which says nothing of what the network learned."""
    torch.save(timm.create_model("vit_tiny_patch16_224", patch_size=8, img_size=64).state_dict(), tmp_path / "x.pth")
    sentence = refusal(tmp_path / "x.pth", backbone=VIT)
    assert "has patch_embed.proj.weight of shape (192, 3, 8, 8), where vit_tiny_patch16_224 has" in sentence


@pytest.mark.parametrize("size", [56, 84])
def test_dinov2_with_registers_is_read_by_its_own_names(size, tmp_path):
    """The class token has a position, registers have none; timm's network adds it to the token once and for all."""
    name = "vit_small_patch14_reg4_dinov2"
    network = seen(timm.create_model(name, num_classes=0, img_size=56), 56)
    own = network.state_dict()
    position = 0.1 * torch.randn(1, 1, 384)
    published = {"register_tokens" if key == "reg_token" else key: value for key, value in own.items()}
    published["cls_token"] = own["cls_token"] - position
    published["pos_embed"] = torch.cat([position, own["pos_embed"]], 1)
    published["mask_token"] = torch.zeros(1, 384)
    for content in (published, {"teacher": parallel(published, "backbone.")}):
        loaded, report = load_content(content, tmp_path, backbone=name, image_size=size)
        assert_same_features(loaded, at_size(name, size, own), size, tolerance=1e-5)
        assert report.left_over == ("mask_token",)


def test_dinov2_without_registers_keeps_the_position_of_its_class_token(tmp_path):
    name = "vit_small_patch14_dinov2"
    network = seen(timm.create_model(name, num_classes=0, img_size=56), 56)
    loaded, _ = load_content(
        network.state_dict() | {"mask_token": torch.zeros(1, 384)}, tmp_path, backbone=name, image_size=70
    )
    assert_same_features(loaded, at_size(name, 70, network.state_dict()), 70)


@pytest.mark.parametrize("size", [224, 96])
def test_old_swin_buffers_are_left_and_its_tables_interpolated(size, tmp_path):
    name = "swin_tiny_patch4_window7_224"
    network = seen(timm.create_model(name, num_classes=0), 224)
    index, mask = "layers.0.blocks.0.attn.relative_position_index", "layers.0.blocks.1.attn_mask"
    old = network.state_dict() | {index: torch.zeros(49, 49, dtype=torch.long), mask: torch.zeros(64, 49, 49)}
    loaded, report = load_content({"model": old}, tmp_path, backbone=name, image_size=size)
    if size == 224:
        assert_same_features(loaded, network, 224)
    assert report.left_over == (index, mask)
    assert bool(report.resized) == any("bias_table" in each for each in report.resized) == (size == 96)


def test_indices_that_a_network_computes_may_be_in_the_file_or_not(tmp_path):
    """Old versions of timm saved tables of indices, and a file without them is as good."""
    name = "levit_128s"
    network = seen(timm.create_model(name, num_classes=0), 224)
    weights = network.state_dict() | {"stages.0.blocks.0.attn.attention_bias_idxs": torch.zeros(3, 3, dtype=torch.long)}
    loaded, _ = load_content(weights, tmp_path, backbone=name, image_size=224)
    assert_same_features(loaded, network, 224)


def test_a_family_without_interpolation_asks_for_the_size_of_the_training(tmp_path):
    torch.save(timm.create_model("cait_xxs24_224", num_classes=0, img_size=64).state_dict(), tmp_path / "x.pth")
    sentence = refusal(tmp_path / "x.pth", backbone="cait_xxs24_224", image_size=96)
    assert "has pos_embed of shape (1, 16, 192)" in sentence and "write the image_size of its training" in sentence


def test_a_network_deep_in_a_file_is_accounted_for_where_it_is(vit, tmp_path):
    """timm's conversion knows OpenCLIP's names from the top; the place is still the one below which the weights are."""
    content = {"state_dict": parallel(vit.state_dict(), "visual.trunk.") | {"logit_scale": torch.ones(())}}
    loaded, report = load_content(content, tmp_path, backbone=VIT, image_size=64)
    assert_same_features(loaded, at_size(VIT, 64, vit.state_dict()), 64)
    assert report.prefix == "state_dict.visual.trunk" and report.left_over == ("logit_scale",)


def test_a_convnext_is_read_by_its_authors_names(tmp_path):
    network = seen(timm.create_model("convnext_atto", num_classes=0), 64)
    theirs = {}
    for name, value in network.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace("blocks.", "").replace("head.norm", "norm")
        name = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", name)
        theirs[name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = value
    loaded, report = load_content({"model": theirs}, tmp_path, backbone="convnext_atto")
    assert_same_features(loaded, network, 64)
    assert report.left_over == ()


def passed_to_timm(name: str, monkeypatch) -> tuple:
    """The function by which timm converts files for ``name``, and its options; found by building the network."""
    found = []
    monkeypatch.setattr(timm.models._builder, "load_pretrained", lambda *args, **options: found.append(options))
    timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": "none"}, num_classes=0)
    convert = found[0]["filter_fn"]
    return getattr(convert, "func", convert), getattr(convert, "keywords", {})


@pytest.mark.parametrize(
    "name",
    ["deit3_small_patch16_224", "swin_tiny_patch4_window7_224", "eva02_tiny_patch14_224", "convnext_atto", "resnet18"]
    + ["densenet121", "regnety_002", "vgg11", "vit_tiny_patch16_224", "beit_base_patch16_224", "xcit_nano_12_p8_224"],
)
def test_the_conversion_of_a_family_is_timms(name, monkeypatch):
    """timm has no public name for it: the function found by its place in timm is the one that timm itself would run."""
    theirs, options = passed_to_timm(name, monkeypatch)
    network, asked = timm.create_model(name, num_classes=0), []
    if theirs is None:
        assert published_conversion(name, network, {}) is None
        return
    signature = inspect.signature(theirs)

    def spy(*args, **given):
        asked.append(given)
        return theirs(*args, **given)

    spy.__signature__ = signature
    monkeypatch.setattr(importlib.import_module(timm.model_entrypoint(name).__module__), theirs.__name__, spy)
    weights = network.state_dict()
    converted = published_conversion(name, network, weights)
    assert asked == [options]
    assert converted.keys() == weights.keys() and all(torch.equal(converted[key], weights[key]) for key in weights)


def test_no_family_of_timm_has_a_conversion_by_another_name():
    modules = {timm.model_entrypoint(name).__module__ for name in timm.list_models()}
    named = set()
    for module in modules:
        source = inspect.getsource(importlib.import_module(module))
        named |= set(re.findall(r"pretrained_filter_fn=(?:partial\()?(\w+)", source))
    known = {"checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained"}
    own = {"pretrained_filter_fn"}  # crossvit's, within a function
    language = {"checkpoint_filter_fn_classifier", "checkpoint_filter_fn_encoder"}  # encoders of language models
    assert named - known <= own | language


def efficientnet_pytorch_names(network: nn.Module) -> dict:
    """The weights of a tf_efficientnet under the names of EfficientNet-PyTorch, written down part by part."""
    names = {}
    for block, (path, module) in enumerate(
        (f"blocks.{stage}.{depth}", module)
        for stage, modules in enumerate(network.blocks)
        for depth, module in enumerate(modules)
    ):
        parts = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand", "conv_dw": "_depthwise_conv"}
        if hasattr(module, "conv_pwl"):
            parts |= {"conv_pw": "_expand_conv", "bn1": "_bn0", "bn2": "_bn1", "conv_pwl": "_project_conv"}
            parts |= {"bn3": "_bn2"}
        else:
            parts |= {"bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
        names |= {f"{path}.{own}": f"_blocks.{block}.{theirs}" for own, theirs in parts.items()}
    names |= {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    return {
        f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": v for name, v in network.state_dict().items()
    }


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("ordered", [True, False])
def test_efficientnet_pytorch_is_read_in_any_order_of_its_weights(name, ordered, tmp_path):
    network = seen(timm.create_model(name, num_classes=0), 64)
    weights = efficientnet_pytorch_names(network)
    weights |= {"_fc.weight": torch.zeros(10, 1280), "_fc.bias": torch.zeros(10)}
    content = weights if ordered else {key: weights[key] for key in sorted(weights)}
    loaded, report = load_content(content, tmp_path, backbone=name)
    assert_same_features(loaded, network, 64)
    assert report.left_over and all(each.startswith("_fc.") for each in report.left_over)


def test_a_network_that_pads_otherwise_is_not_taken_for_efficientnet_pytorchs(tmp_path):
    """The weights fit efficientnet_b0 too, whose features would be others."""
    network = timm.create_model("tf_efficientnet_b0", num_classes=0)
    torch.save(efficientnet_pytorch_names(network), tmp_path / "x.pth")
    assert "pads as TensorFlow does: write a backbone named tf_" in refusal(
        tmp_path / "x.pth", backbone="efficientnet_b0"
    )
