"""Which teacher a recipe names, and what it brings along."""

import tomllib
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file

from ssl_transfer import config, runs, zoo
from ssl_transfer.building.model import model_spec, untrained
from ssl_transfer.data import load_images
from ssl_transfer.models import timm_pretrained, torchvision_pretrained
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, save_model
from ssl_transfer.teachers.loading import open_model, open_teacher
from ssl_transfer.teachers.section import named_source

ROOT = Path(__file__).parents[2]
HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def timm_folder(tmp_path):
    """A network as timm writes it for the hub, with an input size and a normalization of its own."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=3).eval()
    own = {"input_size": [3, 48, 48], "mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3], "num_classes": 3}
    timm.models.save_for_hf(network, str(tmp_path), model_config={"pretrained_cfg": own}, safe_serialization=True)
    return tmp_path, network


def test_a_timm_teacher_brings_its_own_size_and_normalization(timm_folder):
    folder, network = timm_folder
    model, _ = open_teacher(config.Teacher(timm=f"local-dir:{folder}"), None)
    assert model.backbone.preprocessing.mean == (0.4, 0.4, 0.4) and model.backbone.input_size == 48
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((images - 0.4) / 0.3), pre_logits=True)
        torch.testing.assert_close(model.features(images), expected, rtol=1e-6, atol=1e-6)
        assert model.features(torch.rand(2, 3, 32, 32)).shape == (2, 512)  # brought to 48 px


def test_the_recipe_can_change_size_and_normalization(timm_folder):
    name = f"local-dir:{timm_folder[0]}"
    changed = timm_pretrained(name, image_size=32, mean=HALF, std=HALF)
    assert changed.input_size == 32 and changed.preprocessing.std == HALF
    gray = timm_pretrained(name, mean=(0.3,), std=(0.4,))
    assert gray(torch.rand(2, 1, 48, 48)).shape == (2, 512)


def test_a_vision_transformer_is_built_for_the_size_asked_for(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64)
    own = {"input_size": [3, 64, 64], "fixed_input_size": True, "mean": HALF, "std": HALF, "num_classes": 0}
    timm.models.save_for_hf(
        network,
        str(tmp_path),
        model_config={"pretrained_cfg": own},
        model_args={"img_size": 64},
        safe_serialization=True,
    )
    small = timm_pretrained(f"local-dir:{tmp_path}", image_size=32)
    assert small.network.pos_embed.shape[1] == 1 + 4  # 2 x 2 patches
    assert small(torch.rand(1, 3, 32, 32)).shape == (1, 192)
    between = timm_pretrained(f"local-dir:{tmp_path}", image_size=40)  # which 2 x 2 patches leave out a third of
    assert between.input_size == 48 and between.network.pos_embed.shape[1] == 1 + 9


def test_the_size_of_published_weights_is_kept_even_where_patches_do_not_fill_it(tmp_path):
    """As of SigLIP's patches of 14 px on 384 px: its authors trained it so."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=40)
    own = {"input_size": [3, 40, 40], "fixed_input_size": True, "mean": HALF, "std": HALF, "num_classes": 0}
    settings = {"model_config": {"pretrained_cfg": own}, "model_args": {"img_size": 40}}
    timm.models.save_for_hf(network, str(tmp_path), **settings, safe_serialization=True)
    assert timm_pretrained(f"local-dir:{tmp_path}").input_size == 40
    assert timm_pretrained(f"local-dir:{tmp_path}", image_size=40).input_size == 40


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", "no network named 'resnet81' in timm: did you mean resnet18"),
        ("cifar_resnet8", "cannot be had from timm"),  # it has no weights
        ("local-dir:nowhere", "cannot be had from timm"),
    ],
)
def test_a_timm_teacher_that_is_not_there_is_one_sentence(name, words):
    with pytest.raises(ValueError, match=words) as refused:
        timm_pretrained(name)
    assert "\n" not in str(refused.value)


@pytest.fixture
def published(monkeypatch):
    """torchvision's published weights, replaced by random ones so that nothing is downloaded."""
    asked = []

    def state(self, *args, **options):
        asked.append((str(self), options))
        architecture = next(
            name
            for name in torchvision.models.list_models(module=torchvision.models)
            if self in torchvision.models.get_model_weights(name).__members__.values()
        )
        torch.manual_seed(0)
        return torchvision.models.get_model(architecture).state_dict()

    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", state)
    return asked


def torchvision_features(name, images):
    """What enters torchvision's last linear layer, its other layers as they are."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name).eval()
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    entered = []
    last.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    with torch.no_grad():
        network(images)
    return entered[0]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0"])
def test_a_torchvision_teacher_gives_what_enters_its_classifier(published, name):
    backbone = torchvision_pretrained(name, image_size=64)
    mean, std = (torch.tensor(color).view(-1, 1, 1) for color in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = backbone(images)
    expected = torchvision_features(name, (images - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())
    assert found.shape[1] == backbone.num_features
    assert published[0][1]["weights_only"] is True


def test_torchvision_weights_bring_their_size(published):
    assert torchvision_pretrained("resnet50.IMAGENET1K_V1").input_size == 224
    assert torchvision_pretrained("efficientnet_b1.IMAGENET1K_V2").input_size == 240
    assert [weights for weights, _ in published] == [
        "ResNet50_Weights.IMAGENET1K_V1",
        "EfficientNet_B1_Weights.IMAGENET1K_V2",
    ]


def test_a_torchvision_resnet_gives_feature_maps(published):
    maps = torchvision_pretrained("resnet18", image_size=64).feature_maps(torch.rand(1, 3, 64, 64))
    assert [each.shape[1] for each in maps] == [64, 64, 128, 256, 512]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet19", "no network named 'resnet19' in torchvision to teach: did you mean resnet1"),
        ("resnet18.V9", "torchvision has no weights 'V9' of resnet18: choose IMAGENET1K_V1"),
        ("googlenet", "no network named 'googlenet' in torchvision to teach"),
    ],
)
def test_a_torchvision_teacher_that_is_not_there_is_one_sentence(name, words):
    with pytest.raises(ValueError, match=words):
        torchvision_pretrained(name)


def test_a_torchvision_network_without_a_linear_layer_is_refused(published):
    with pytest.raises(ValueError, match="squeezenet1_1 has no linear classifier to take off"):
        torchvision_pretrained("squeezenet1_1")


def test_a_run_folder_teaches_with_its_own_normalization(tmp_path):
    spec = ModelSpec("cifar_resnet8", "default", 3, 32, HALF, HALF, head=HeadSpec("projection", 8))
    save_model(tmp_path, build_model(spec), spec)
    model, report = open_teacher(config.Teacher(checkpoint=str(tmp_path), output="projection"), None)
    assert model.backbone.preprocessing.mean == HALF and model.embedding_dim == 8 and report == []
    assert not model.training


def test_a_projection_that_is_not_there_is_refused_with_the_reason(tmp_path, published):
    spec = ModelSpec("cifar_resnet8", "default", 3, 32, HALF, HALF)
    save_model(tmp_path, build_model(spec), spec)
    with pytest.raises(ValueError, match=r"has no projection head \(its run had none\): write output: features"):
        open_teacher(config.Teacher(checkpoint=str(tmp_path), output="projection"), None)
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "net.safetensors")
    named = {"backbone": "resnet18", "mean": HALF, "std": HALF, "image_size": 32}
    with pytest.raises(ValueError, match=r"heads of format plain are not loaded\): write output: features"):
        open_teacher(config.Teacher(file=str(tmp_path / "net.safetensors"), output="projection", **named), None)


def test_a_file_teacher_reports_what_it_matched(tmp_path):
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "net.safetensors")
    named = {"backbone": "resnet18", "mean": HALF, "std": HALF, "image_size": 32}
    teacher = config.Teacher(file=str(tmp_path / "net.safetensors"), **named)
    model, report = open_teacher(teacher, None)
    assert report[0] == "The file was read in the format plain, and the backbone at the top of it."
    assert "Left over in the file: fc (2)." in report
    assert teacher.title == "resnet18 of net.safetensors" and model.num_features == 512


def test_one_of_several_networks_in_a_file_is_chosen_by_prefix(tmp_path):
    network = torchvision.models.resnet18()
    weights = {
        f"{name}.{key}": value.clone() for name in ("student", "teacher") for key, value in network.state_dict().items()
    }
    weights["teacher.conv1.weight"] += 1
    save_file(weights, tmp_path / "net.safetensors")
    named = {"backbone": "resnet18", "mean": HALF, "std": HALF, "image_size": 32}
    with pytest.raises(ValueError, match="below student and teacher: write prefix: student"):
        open_teacher(config.Teacher(file=str(tmp_path / "net.safetensors"), **named), None)
    teacher = config.Teacher(file=str(tmp_path / "net.safetensors"), prefix="teacher", **named)
    model, report = open_teacher(teacher, None)
    assert torch.equal(model.backbone.network.conv1.weight, weights["teacher.conv1.weight"])
    assert report[0] == "The file was read in the format wrapped, and the backbone below teacher in it."
    assert any("student" in line for line in report)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, timm_folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = ModelSpec("cifar_resnet8", "default", 3, 32, HALF, HALF)
    save_model(tmp_path / "run", build_model(spec), spec)
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "net.safetensors")
    named = {"backbone": "resnet18", "mean": HALF, "std": HALF, "image_size": 32}
    for teacher in (
        config.Teacher(checkpoint="~/run"),
        config.Teacher(file="~/net.safetensors", **named),
        config.Teacher(timm="local-dir:~"),
    ):
        model, _ = open_teacher(teacher, None)
        assert model.num_features in (64, 512)
    assert config.Teacher(checkpoint="~/run").checkpoint == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "exactly one of recipe, checkpoint, zoo, timm, torchvision, file; given: none"),
        ({"timm": "resnet18", "torchvision": "resnet18"}, "given: timm, torchvision"),
        ({"file": "x.pth"}, "file needs backbone"),
        ({"file": "x.pth", "backbone": "resnet18", "format": "solo"}, "did you mean 'solo-learn'"),
        ({"timm": "resnet18", "format": "moco"}, "format cannot be given with timm"),
        ({"timm": "resnet18", "prefix": "model"}, "prefix cannot be given with timm"),
        ({"checkpoint": "runs/x", "image_size": 32}, "image_size cannot be given with checkpoint"),
    ],
)
def test_what_does_not_go_together_is_told_by_the_recipe(keys, words):
    with pytest.raises(ValidationError, match=words):
        config.Teacher(**keys)


def test_a_teacher_written_before_these_keys_keeps_its_identity():
    assert config.Teacher(timm="resnet18").model_dump(exclude_none=True) == {"timm": "resnet18", "output": "features"}


@pytest.mark.parametrize(
    "task",
    [
        "{kind: simclr, projection_dim: 8}",
        "{kind: moco, projection_dim: 8}",
        "{kind: moco_v3, projection_dim: 8, hidden_dim: 8}",
        "{kind: metric}",
        "{kind: classify}",
        "{kind: pkt, teacher: {timm: resnet18}}",
        "{kind: pkt, teacher: {timm: resnet18}, labels: true}",
    ],
)
@pytest.mark.parametrize("width", ["null", "8"])
def test_a_model_gives_the_outputs_that_its_recipe_announces(recipes, task, width):
    simclr = recipes / "digits" / "simclr.yaml"
    head = width if task.startswith(("{kind: metric", "{kind: pkt")) and "labels" not in task else "null"
    recipe = config.load(simclr, [f"task={task}", f"model.embedding_dim={head}", "score=[]"])
    images = load_images("digits", Path(), split="test", download=False)
    model = untrained(recipe, model_spec(recipe, images)).eval()
    with torch.no_grad():
        assert list(model.outputs(images.pixels[:2].float() / 255)) == recipe.outputs


def test_one_word_names_a_model_from_any_source(tmp_path, model):
    torch.manual_seed(0)
    spec = ModelSpec("cifar_resnet8", "default", 1, 8, (0.1,), (0.2,), head=HeadSpec("embedding", 16))
    save_model(tmp_path / "run", model, spec)
    network = timm.create_model("resnet18", num_classes=0)
    save_file(network.state_dict(), tmp_path / "other.safetensors")
    for word in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        assert named_source(str(word)) == {"checkpoint": str(tmp_path / "run")}
    assert named_source(str(tmp_path / "other.safetensors")) == {"file": str(tmp_path / "other.safetensors")}
    assert named_source("timm:hf-hub:owner/name") == {"timm": "hf-hub:owner/name"}
    assert named_source("torchvision:resnet18.DEFAULT") == {"torchvision": "resnet18.DEFAULT"}
    assert named_source("file:x:y.pth") == {"file": "x:y.pth"}

    opened, report = open_model(str(tmp_path / "run"), backbone=None)
    assert not opened.training and report == []
    for name, value in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name
    prepared = {"mean": [0.5] * 3, "std": [0.25] * 3, "image_size": 32}
    opened, report = open_model(str(tmp_path / "other.safetensors"), backbone="resnet18", **prepared)
    assert report and opened.backbone.preprocessing.std == (0.25,) * 3 and opened.backbone.input_size == 32
    assert torch.equal(opened.backbone.network.conv1.weight, network.conv1.weight)


@pytest.mark.parametrize("name", zoo.names())
def test_what_comes_with_the_package_opens_in_one_word_and_says_how_to_make_it_again(name):
    opened, _ = open_model(f"zoo:{name}")
    made, folder = runs.read_recipe(zoo.folder(name)), zoo.folder(name)
    assert opened.backbone.name == made.model.backbone and (folder / "README.md").is_file()
    assert config.Teacher(zoo=name).title == name
    features = opened.features(torch.rand(2, 3, 32, 32))
    assert features.isfinite().all() and not torch.equal(features[0], features[1])


def test_what_comes_with_the_package_is_small_and_in_its_wheel():
    files = [path for name in zoo.names() for path in zoo.folder(name).rglob("*") if path.is_file()]
    assert files and sum(path.stat().st_size for path in files) < 2.5 * 2**20
    with (ROOT / "pyproject.toml").open("rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["ssl_transfer.zoo"]
    root = Path(zoo.__file__).parent
    assert set(files) == {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}


def test_a_word_that_names_no_model_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("other.pth").touch()
    with pytest.raises(FileNotFoundError, match="no folder or file resnet18: .* such as timm:resnet18"):
        named_source("resnet18")
    with pytest.raises(ValueError, match="^other.pth: file needs backbone"):
        open_model("other.pth")
    with pytest.raises(ValueError, match="^timm:resnet18: stem cannot be given with timm"):
        open_model("timm:resnet18", stem="cifar")
    with pytest.raises(ValueError, match="no path is empty"):
        named_source("")
    with pytest.raises(ValueError, match="^zoo:cifar10-simcl: zoo: .*; did you mean"):
        open_model("zoo:cifar10-simcl")
