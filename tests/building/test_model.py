"""What network a recipe describes for which images, and the weights that it starts from."""

from pathlib import Path

import pytest
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from ssl_transfer import config
from ssl_transfer.building import teacher
from ssl_transfer.building.model import model_spec, untrained
from ssl_transfer.building.task import build_task
from ssl_transfer.context import Context
from ssl_transfer.data import Images
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.teachers.section import Teacher

SIMCLR = Path(__file__).parents[2] / "recipes" / "digits" / "simclr.yaml"


def images_of(channels: int) -> Images:
    pixels = torch.zeros(60, channels, 40, 40, dtype=torch.uint8)
    return Images(pixels, None, None, "blank", "train", (0.21,) * channels, (0.31,) * channels)


def test_the_network_is_the_recipes_and_the_images():
    given = "{backbone: resnet18, stem: cifar, pooling: max, drop_path: 0.25, mean: [0.1], std: [0.2]}"
    recipe = config.load(SIMCLR, [f"model={given}", "task.projection_dim=7"])
    head = HeadSpec("projection", 7)
    expected = ModelSpec("resnet18", "cifar", 1, 40, (0.1,), (0.2,), drop_path=0.25, pooling="max", head=head)
    assert model_spec(recipe, images_of(1)) == expected
    cropped = config.load(
        SIMCLR, ["data={dataset: folder, root: x, image_size: 40, crop_size: 24, batch_size: 4, augment: simclr}"]
    )
    assert model_spec(cropped, images_of(3)).image_size == 24


def test_a_pretrained_network_keeps_the_normalization_it_was_trained_with_where_the_colors_are_the_same():
    own = get_pretrained_cfg("mobilenetv3_small_100")
    assert own.mean != (0.21,) * 3

    def normalization(channels: int, *overrides: str) -> tuple:
        recipe = config.load(SIMCLR, ["model.backbone=mobilenetv3_small_100", *overrides])
        spec = model_spec(recipe, images_of(channels))
        return spec.mean, spec.std

    assert normalization(3, "model.pretrained=true") == (own.mean, own.std)
    assert normalization(3) == ((0.21,) * 3, (0.31,) * 3)
    assert normalization(1, "model.pretrained=true") == ((0.21,), (0.31,))
    assert normalization(3, "model.pretrained=true", "model.mean=[0.1, 0.2, 0.3]") == ((0.1, 0.2, 0.3), own.std)


def test_the_first_weights_are_a_function_of_the_seed():
    def weight(seed: int) -> torch.Tensor:
        recipe = config.load(SIMCLR, [f"seed={seed}"])
        return untrained(recipe, model_spec(recipe, images_of(1))).get_parameter("backbone.network.stem.weight")

    first = weight(3)
    torch.randn(5)  # whatever happened to the generator before
    assert torch.equal(weight(3), first) and not torch.equal(weight(4), first)


@pytest.mark.parametrize("seed", [3, 4])
def test_what_a_task_adds_to_the_networks_is_a_function_of_the_seed(seed):
    """Of the seed plus one, which is written out again: by another number runs that people have made would change."""
    recipe = config.load(SIMCLR.parent / "transfer.yaml", ["task.kind=seed", "task.queue_size=12", f"seed={seed}"])
    student, teacher = (
        untrained(recipe, ModelSpec(name, "default", 1, 8, (0.3,), (0.4,)))
        for name in ("cifar_resnet8", "tiny_convnet")
    )
    task = build_task(recipe, student, [teacher], images_of(1), steps_per_epoch=1)
    torch.manual_seed(seed + 1)
    adapter = nn.Linear(student.num_features, teacher.num_features)
    assert torch.equal(task.adapter.weight, adapter.weight)
    assert torch.equal(task.queue, torch.randn(12, teacher.num_features))


def test_labels_cannot_be_learned_from_images_without_them():
    classify = config.load(SIMCLR, ["task={kind: classify}"]).task
    with pytest.raises(ValueError, match="blank train has no labels to learn"):
        classify.model_head(None, images_of(1))


@pytest.mark.parametrize("lines", [[], ["3 tensors of a classifier were left out."]])
def test_what_became_of_a_files_weights_is_said_where_the_teacher_is_built_and_not_where_it_is_scored(
    lines, monkeypatch, capsys
):
    recipe = config.load(SIMCLR)
    model = build_model(model_spec(recipe, images_of(1)))
    monkeypatch.setattr(teacher, "open_teacher", lambda given, folder: (model, lines))
    context, given = Context.start(recipe), Teacher(timm="resnet18")
    teacher.load_teacher(given, context, report=False)
    assert not capsys.readouterr().out
    teacher.load_teacher(given, context)
    assert capsys.readouterr().out == "".join(f"teacher: {given.title}. {line}\n" for line in lines)
