"""Where in a file a network is looked for, which of several is taken, and what is said of the others."""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn

from ssl_transfer.models import load_foreign
from tests.models.foreign_files import PLAIN, assert_same_features, load_content, parallel, refusal, seen, without_fc


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return seen(without_fc(torchvision.models.resnet18()), 64)


@pytest.fixture(scope="module")
def weights(network) -> dict:
    return network.state_dict()


def averaged(weights: dict) -> dict:
    return {name: 1.5 * value if value.is_floating_point() else value for name, value in weights.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "model_state_dict",
        "net",
        "state_dict.model.backbone",
        "state_dict.trunk",
        "model.module.student",
        "checkpoint.network.0",
        "state_dict._forward_module.encoder",
        "ema",
        "state_dict._fsdp_wrapped_module.features",
    ],
)
def test_weights_are_found_below_any_name(prefix, network, weights, tmp_path):
    content: dict = parallel(weights, "")
    first, *rest = prefix.split(".")
    if rest:
        content = parallel(content, ".".join(rest) + ".")
    if first:
        content = {first: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(64, 3, 7, 7)}}}}
    loaded, report = load_content(content, tmp_path, backbone="resnet18")
    assert_same_features(loaded, network, 64)
    plain = re.sub(r"(^|\.)(module|_\w+_module)(?=\.|$)", "", prefix).strip(".")
    assert report.prefix == plain and report.others == ()
    assert report.left_over == (("optimizer.state.0.exp_avg",) if first else ())


def test_each_layer_in_a_wrapper_of_its_own_is_found(network, weights, tmp_path):
    """FSDP and activation checkpointing wrap blocks, so their names stand in the middle."""
    inner = {re.sub(r"^(layer\d\.\d)\.", r"\1._checkpoint_wrapped_module.", name): weights[name] for name in weights}
    loaded, _ = load_content({"model": inner}, tmp_path, backbone="resnet18")
    assert_same_features(loaded, network, 64)


def test_names_that_differ_in_a_wrapper_alone_are_kept_apart(network, weights, tmp_path):
    content = {**weights, **parallel(averaged(weights))}
    loaded, report = load_content(content, tmp_path, backbone="resnet18", prefix="")
    assert_same_features(loaded, network, 64)
    assert report.others == ("module",)


def test_a_sequential_of_backbone_and_head_is_found(network, weights, tmp_path):
    model = nn.Sequential(network, nn.Linear(512, 3))
    loaded, report = load_content(model.state_dict(), tmp_path, backbone="resnet18")
    assert_same_features(loaded, network, 64)
    assert report.prefix == "0" and report.left_over == ("1.weight", "1.bias")


@pytest.mark.parametrize(
    ("trained", "average"),
    [
        ("state_dict", "state_dict_ema"),  # timm
        ("model", "model_ema"),  # DeiT, ConvNeXt
        ("model", "ema"),
        ("net", "swa_model"),
        ("online_network", "target_network"),  # BYOL
        ("backbone", "momentum_backbone"),  # solo-learn
        ("backbone", "backbone_momentum"),  # lightly
        ("generator", "averaged_generator"),
        ("model", "callbacks.EMA.shadow"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_averages_are_left_where_the_weights_are_there_too_and_are_named(
    trained, average, order, network, weights, tmp_path
):
    content = dict([(trained, weights), (average, averaged(weights))][::order])
    loaded, report = load_content(content, tmp_path, backbone="resnet18")
    assert_same_features(loaded, network, 64)
    assert report.others == (average,)
    assert any("not taken" in line and line.endswith(f"{average}.") for line in report.lines())
    other, report = load_content(content, tmp_path, backbone="resnet18", prefix=average)
    assert torch.equal(other.conv1.weight, 1.5 * weights["conv1.weight"]) and report.others == (trained,)


def test_an_average_kept_as_a_list_is_left_over_and_counted(weights, tmp_path):
    """A list has no names to load by; it must not vanish from the account."""
    content = {"model": weights, "ema": {"shadow_params": list(averaged(weights).values())}}
    _, report = load_content(content, tmp_path, backbone="resnet18")
    assert f"Left over in the file: ema ({len(weights)})." in report.lines()


@pytest.mark.parametrize(
    "names", [("student", "teacher"), ("state_dict", "best_state_dict"), ("ema", "swa"), ("a", "b")]
)
def test_which_of_several_networks_is_meant_is_asked(names, weights, tmp_path):
    torch.save(dict(zip(names, (weights, averaged(weights)), strict=True)), tmp_path / "two.pth")
    sentence = refusal(tmp_path / "two.pth")
    assert f"2 times, with different values, below {names[0]} and {names[1]}: write prefix: {names[0]}" in sentence
    for name, factor in zip(names, (1, 1.5), strict=True):
        model, _ = load_foreign(tmp_path / "two.pth", backbone="resnet18", prefix=name, **PLAIN)
        assert torch.equal(model.backbone.network.conv1.weight, factor * weights["conv1.weight"])


def test_copies_of_the_same_weights_are_no_question(network, weights, tmp_path):
    loaded, report = load_content({"state_dict": weights, "model": dict(weights)}, tmp_path, backbone="resnet18")
    assert_same_features(loaded, network, 64)
    assert report.others == ()


def test_a_momentum_encoder_can_be_asked_for_with_what_its_tool_is_known_to_do(network, weights, tmp_path):
    head = {"fc.0.weight": torch.randn(8, 512), "fc.0.bias": torch.randn(8)}
    query, key = weights | head, averaged(weights) | {name: 2 * value for name, value in head.items()}
    content = {"state_dict": parallel(query, "module.encoder_q.") | parallel(key, "module.encoder_k.")}
    torch.save(content, tmp_path / "moco.pth")
    model, report = load_foreign(tmp_path / "moco.pth", backbone="resnet18", prefix="module.encoder_k")
    assert report.format == "moco" and report.prefix == "state_dict.encoder_k"
    assert report.others == ("state_dict.encoder_q",)
    assert model.backbone.input_size == 224
    assert torch.equal(model.head.layers[0].weight, 2 * head["fc.0.weight"])  # its own head, not the query's


def test_a_prefix_can_be_written_without_its_beginning(network, weights, tmp_path):
    content = {"state_dict": parallel(weights, "model.backbone.")}
    for prefix in ("state_dict.model.backbone", "state_dict.model.backbone.", "model.backbone", "backbone"):
        _, report = load_content(content, tmp_path, backbone="resnet18", prefix=prefix)
        assert report.prefix == "state_dict.model.backbone"


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("encoder", r"has nothing below prefix 'encoder': its names begin with state_dict, ema$"),
        (
            "backbone",
            r"has prefix 'backbone' more than once: write one of state_dict\.backbone, ema\.backbone$",
        ),
        ("state_dict.head", r"\(below state_dict\.head\) lacks 100 of the 100 weights of resnet18"),
    ],
)
def test_a_prefix_that_is_not_there_is_one_sentence(prefix, words, weights, tmp_path):
    below = parallel(weights, "backbone.")
    torch.save({"state_dict": {**below, "head.weight": torch.zeros(3)}, "ema": below}, tmp_path / "x.pth")
    assert re.search(words, refusal(tmp_path / "x.pth", prefix=prefix))


def test_a_network_that_is_nowhere_is_described_where_it_comes_nearest(weights, tmp_path):
    near = {name: value for name, value in weights.items() if name != "layer3.1.bn2.weight"}
    torch.save(
        {"optimizer": {"a": torch.zeros(2)}, "model": {"trunk": near}, "arch": "resnet18_v2"}, tmp_path / "x.pth"
    )
    sentence = refusal(tmp_path / "x.pth")
    assert "(below model.trunk) lacks 1 of the 100 weights of resnet18, the first is layer3.1.bn2.weight" in sentence
    assert sentence.endswith("(the file says arch: resnet18_v2)")


def test_a_larger_network_is_not_taken_for_a_smaller_one_inside_it(tmp_path):
    content = {"model": parallel(torchvision.models.resnet34().state_dict(), "net.")}
    torch.save(content, tmp_path / "x.pth")
    assert "of a larger network than resnet18" in refusal(tmp_path / "x.pth")


def test_quantized_weights_are_refused(weights, tmp_path):
    torch.save(weights | {"conv1.weight": weights["conv1.weight"].mul(10).to(torch.int8)}, tmp_path / "x.pth")
    assert "has conv1.weight as torch.int8: give the weights as they were" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize("scale", [float("nan"), 1e300])  # the latter finite in float64, which the file may have
def test_weights_that_are_not_finite_are_refused(weights, tmp_path, scale):
    torch.save(weights | {"bn1.weight": weights["bn1.weight"].double() * scale}, tmp_path / "x.pth")
    assert "not finite, the first is bn1.weight of resnet18: its training diverged" in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda weight: weight.to_sparse(), "sparse"),
        (lambda weight: weight.to("meta"), "without content"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), "quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_tensors_without_plain_numbers_are_refused(weights, tmp_path, made, words):
    torch.save(weights | {"conv1.weight": made(weights["conv1.weight"])}, tmp_path / "x.pth")
    assert f"has conv1.weight as a tensor that is {words}: save the network's plain weights" in refusal(
        tmp_path / "x.pth"
    )


def test_a_network_for_gray_images_says_so(tmp_path):
    weights = timm.create_model("resnet18", in_chans=1, num_classes=0).state_dict()
    torch.save(weights, tmp_path / "x.pth")
    assert "trained on 1 channels: write mean and std with a value for each" in refusal(tmp_path / "x.pth")
    gray = {"mean": (0.5,), "std": (0.25,), "image_size": 64}
    model, _ = load_foreign(tmp_path / "x.pth", backbone="resnet18", **gray)
    assert model.features(torch.rand(2, 1, 64, 64)).shape == (2, 512)


def test_the_home_folder_can_be_written_as_a_tilde(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(weights, tmp_path / "x.pth")
    model, _ = load_foreign("~/x.pth", backbone="resnet18", **PLAIN)
    assert torch.equal(model.backbone.network.conv1.weight, weights["conv1.weight"])
