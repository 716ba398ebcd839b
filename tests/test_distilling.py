"""``ssl_transfer.distill``: a recipe from a few words, run as any other, and what comes back."""

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_transfer
from ssl_transfer import config, distilling
from ssl_transfer.errors import UserError
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, load_model, save_model
from ssl_transfer.recipe import run

RECIPE = """
name: digits-cifar_resnet8
seed: 3
data: {dataset: digits, batch_size: 32, augment: digits, views: 1}
model: {backbone: cifar_resnet8}
task: {kind: pkt, teacher: {checkpoint: teacher}}
optim: {name: adamw, lr: 1.0e-2, weight_decay: 1.0e-4, warmup_epochs: 0.1}
train: {epochs: 1, steps: 2, runs: by-recipe}
score: [{kind: knn, k: [5]}]
"""


@pytest.fixture
def here(tmp_path, monkeypatch, model, digits):
    """A folder with a teacher of digits, and one with thirty photos in two classes."""
    monkeypatch.chdir(tmp_path)
    spec = ModelSpec("cifar_resnet8", "default", 1, 8, digits[0].mean, digits[0].std, head=HeadSpec("embedding", 16))
    save_model(tmp_path / "teacher", model, spec)
    for place in range(80):
        path = tmp_path / "photos" / ("ant" if place % 2 else "bee") / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 8, 3), 3 * place, dtype=np.uint8)).save(path)
    return tmp_path


def written(**said) -> config.Recipe:
    """The recipe that is made, without a run of it."""
    given = {"teacher": "teacher", "student": "cifar_resnet8", "data": "photos", "epochs": 20} | said
    words = [given.pop(name) for name in ("teacher", "student", "data", "epochs")]
    return config.of_mapping(distilling._recipe(*words, given), "distill")


@pytest.mark.slow
def test_it_is_the_run_of_the_recipe_that_says_the_same(here):
    made = ssl_transfer.distill(
        "teacher",
        "cifar_resnet8",
        "digits",
        epochs=1,
        seed=3,
        batch_size=32,
        views=1,
        augment="digits",
        kind="pkt",
        optim={"lr": 1e-2},
        steps=2,
        score=[{"kind": "knn", "k": [5]}],
    )
    (here / "recipe.yaml").write_text(RECIPE)
    recipe = config.load("recipe.yaml")
    assert config.identity_hash(made.recipe) == config.identity_hash(recipe)
    expected = load_model(run(recipe))[0].state_dict()
    for name, value in made.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert made.scores.columns.tolist() == ["kNN 5"]
    assert made.scores.index.get_level_values("role").tolist() == ["teacher", "student", "untrained", "raw pixels"]
    assert len(made.metrics) == 2 and made.metrics["loss"].notna().all()
    assert repr(made) == "Run('runs/digits-cifar_resnet8', pkt into cifar_resnet8, finished)"
    again = ssl_transfer.Run("runs/digits-cifar_resnet8")
    assert again.model.embed("digits", progress=False).values.shape == (355, 64)


def test_a_folder_without_a_test_split_is_split_and_scored_by_its_labels(here):
    made = written()
    assert made.name == "photos-cifar_resnet8" and made.task.teacher.checkpoint == "teacher"
    assert (made.data.held_out, made.data.test, made.data.image_size, made.data.batch_size) == (8, "held_out", 224, 32)
    assert [kind.kind for kind in made.score] == ["knn", "linear_probe", "agreement"]
    assert (made.optim.warmup_epochs, made.train.epochs) == (2.0, 20)
    unlabeled = written(data={"dataset": "folder", "root": "photos", "labels": "none"})
    assert [kind.kind for kind in unlabeled.score] == ["agreement"] and unlabeled.score[0].k == 3
    (here / "photos").rename(here / "train")
    (here / "pictures").mkdir()
    (here / "train").rename(here / "pictures" / "train")
    (here / "pictures" / "test").symlink_to(here / "pictures" / "train")
    assert written(data="pictures").data.held_out is None and written(data="pictures").data.test is None


@pytest.mark.parametrize("images, batch", [(2, 2), (20, 20), (40, 32), (540, 64), (5000, 256), (10**6, 256)])
def test_the_batch_that_is_filled_in_grows_with_the_images(images, batch):
    assert distilling._batch_of(images) == batch


def test_a_key_goes_to_the_section_that_has_it(here):
    made = written(
        lr=1e-4, image_size=32, embedding_dim=8, delta=0.5, tracker="wandb", name="mine", task={"weight": 2.0}
    )
    assert (made.optim.lr, made.data.image_size, made.model.embedding_dim, made.task.delta) == (1e-4, 32, 8, 0.5)
    assert (made.train.tracker, made.name, made.task.weight, made.task.kind) == (
        "wandb",
        "mine",
        2.0,
        "relaxed_contrastive",
    )
    assert written(optim={"schedule": "constant"}).optim.warmup_epochs == 0


def test_several_teachers_are_named_in_a_list_each_in_its_own_way(here):
    made = written(teacher=["teacher", {"timm": "resnet18", "weight": 2.0}], teacher_dropout=0.5)
    assert [(one.checkpoint, one.timm, one.weight) for one in made.teachers] == [
        ("teacher", None, None),
        (None, "resnet18", 2.0),
    ]
    assert made.task.teacher_dropout == 0.5


@pytest.mark.parametrize(
    "said, words",
    [
        ({"batch_sizes": 3}, "batch_sizes is no key of a recipe: did you mean batch_size"),
        ({"labels": "none"}, "labels is a key of task and of data: say of which"),
        ({"optim": 3}, r"optim is a section of a recipe: give its keys, as in optim=\{"),
        ({"batch_size": 0, "lr": "x"}, "distill: 2 problems\n  data.batch_size: .*\n  optim.lr: "),
        ({"data": "fotos"}, "there is no folder fotos, and no data set of that name"),
        ({"data": {"dataset": "foldr"}}, "data.dataset: cannot be 'foldr'; did you mean 'folder'"),
        ({"teacher": "resnet18"}, "no folder or file resnet18: .* timm:resnet18"),
        ({"teacher": "none.yaml"}, "task.teacher.recipe: there is no recipe none.yaml"),
        ({"student": {"backbone": 3}}, "model.backbone: cannot be 3"),
    ],
)
def test_whatever_is_wrong_is_said_as_for_a_recipe(here, said, words):
    given = {"teacher": "teacher", "student": "cifar_resnet8", "data": "photos"} | said
    with pytest.raises(UserError, match=words):
        ssl_transfer.distill(**given)
    assert not (here / "runs").exists()


def test_a_folder_that_is_no_run_is_refused(here):
    with pytest.raises(UserError, match="photos is no run folder"):
        ssl_transfer.Run("photos")
