"""Whole runs on images from files."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ssl_transfer import config, recipe, runs
from ssl_transfer.errors import UserError
from ssl_transfer.training.engine import Interrupted

RECIPE = """
name: photos
seed: 0
data: {{dataset: folder, root: {root}, image_size: 16, split: unlabeled, batch_size: 20, workers: 1, augment: simclr}}
model: {{backbone: tiny_convnet}}
task: {{kind: simclr, projection_dim: 8}}
optim: {{name: adamw, lr: 1.0e-3, weight_decay: 0.0, warmup_epochs: 0}}
train: {{epochs: 2, precision: full, cpu_threads: 1, runs: {root}/runs}}
score: [{{kind: knn, k: [5]}}]
"""


@pytest.fixture
def photos(tmp_path):
    """Unlabeled images, and labeled ones of three shades; the test split lacks the first class."""
    draw = np.random.default_rng(0)

    def write(place, shade, count):
        (tmp_path / place).mkdir(parents=True)
        for number in range(count):
            pixels = (draw.integers(0, 80, (24, 20, 3)) + shade).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{number}.jpg")

    write("unlabeled", 80, 50)
    shades = {"bright": 170, "dark": 0, "middle": 85}
    for name, shade in shades.items():
        write(f"train/{name}", shade, 10)
    for name in ("dark", "middle"):
        write(f"test/{name}", shades[name], 10)
    (tmp_path / "photos.yaml").write_text(RECIPE.format(root=tmp_path))
    return tmp_path


@pytest.mark.slow
def test_streamed_and_held_images_train_and_score_to_the_same_bits(photos):
    finished = []
    for name, resident in (("held", "true"), ("streamed", "false")):
        given = config.load(photos / "photos.yaml", [f"name={name}", f"data.resident={resident}"])
        if name == "streamed":
            with pytest.raises(Interrupted):
                recipe.run(given, stop=lambda step: step == 3)
        finished.append(recipe.run(given))
    held, streamed = (load_file(folder / "model.safetensors") for folder in finished)
    assert all(torch.equal(weight, streamed[key]) for key, weight in held.items())
    # Shades are told apart by any network, if the classes of both splits have the same numbers.
    for folder in finished:
        scores = json.loads((folder / "scores.json").read_text())["scores"]
        assert [score["value"] for score in scores if score["model"].startswith(("trained", "untrained"))] == [1.0, 1.0]
    assert len(list((photos / "runs" / "checked-images").glob("*.json"))) == 3


@pytest.mark.slow
def test_a_run_is_not_continued_and_not_taken_for_done_on_other_images(photos):
    def asked(*overrides):
        return config.load(photos / "photos.yaml", ["score=[]", *overrides])

    with pytest.raises(Interrupted):
        recipe.run(asked(), stop=lambda step: step == 1)
    with pytest.raises(Interrupted):  # streamed or held, they are the same
        recipe.run(asked("data.resident=false"), stop=lambda step: step == 2)
    photo = photos / "unlabeled" / "7.jpg"
    photo.rename(photos / "7.jpg")
    with pytest.raises(UserError, match="photos was made from other training image contents than the recipe now finds"):
        recipe.run(asked())
    (photos / "7.jpg").rename(photo)
    recipe.run(asked())
    photo.rename(photos / "7.jpg")
    with pytest.raises(UserError, match="bring those back, or choose another name"):
        recipe.run(asked())
    recipe.run(asked("data.root=nowhere"))  # a finished run needs none


def test_a_broken_photo_is_named_and_may_be_skipped(photos):
    (photos / "unlabeled" / "7.jpg").write_bytes(b"nothing")
    asked = ["train.steps=1", "score=[]"]
    with pytest.raises(UserError, match=r"1 of 50 images cannot be decoded: .*7\.jpg .*data\.on_error=skip"):
        recipe.run(config.load(photos / "photos.yaml", asked))
    folder = recipe.run(config.load(photos / "photos.yaml", [*asked, "data.on_error=skip"]))
    assert runs.read_info(folder).images["taken"] == 49


def test_images_may_stay_unchecked_until_they_are_met(photos):
    streamed = ["data.resident=false", "train.steps=5", "score=[]"]
    (photos / "unlabeled" / "7.jpg").write_bytes(b"nothing")
    unchecked = config.load(photos / "photos.yaml", [*streamed, "data.unchecked=true"])
    assert config.identity_hash(unchecked) == config.identity_hash(config.load(photos / "photos.yaml", streamed))
    with pytest.raises(UserError, match=r"1 images cannot be decoded: .*7\.jpg"):
        recipe.run(unchecked)
    assert runs.read_info(photos / "runs" / "photos") is not None  # training had begun
    assert not list((photos / "runs").glob("checked-images/*"))


@pytest.mark.parametrize(
    "override, words",
    [
        (
            "data.root=s3://bucket/photos",
            "root s3://bucket/photos is an address, which is for dataset webdataset alone",
        ),
        ("train.runs=s3://bucket/runs", "train.runs: cannot be 's3://bucket/runs': an address is no folder or file on"),
        ("data.on_error=skip data.unchecked=true", "on_error: skip needs to know which images are broken"),
        ("data.dataset=stl10", "the images of stl10 have their size: leave out image_size"),
        ("data.resident=sometimes", "data.resident: cannot be 'sometimes'"),
        ("data.fixed_views=0", "data.fixed_views: cannot be 0"),
        ("data.dataset=webdatasets", "did you mean 'webdataset'"),
    ],
)
def test_a_mistake_in_data_is_told_before_anything_is_read(photos, override, words):
    with pytest.raises(UserError) as error:
        config.load(photos / "photos.yaml", override.split())
    assert words in str(error.value)


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["data.test=tset"], "There is no folder .*tset for split tset"),
        (["data.train=unlabeled"], "train_y has 50 of 50 labels missing"),
        (["data.train=test", "data.test=train"], r"test_y has 1 classes that are absent from train_y \(2\)"),
        (["score=[{kind: knn, k: [31]}]"], "k is 31 but there are 30 images to search"),
        (["score=[{kind: few_shot, labels_per_class: [11]}]"], "the smallest class has 10 training images"),
        (["score=[{kind: finetune}]", "data.resident=false"], "fine-tuning needs images in memory"),
        (["score=[{kind: best_on_test}]", "data.test=unlabeled"], "test_y has 50 of 50 labels missing"),
    ],
)
def test_scores_that_cannot_be_had_are_refused_before_anything_is_trained(photos, overrides, words):
    with pytest.raises(UserError, match=words):
        recipe.run(config.load(photos / "photos.yaml", overrides))
    assert not (photos / "runs").exists()


@pytest.mark.slow
def test_what_a_reader_left_out_is_in_the_log_and_in_run_json(photos, caplog):
    (photos / "train" / "dark" / "notes.xyz").write_text("no image")
    (photos / "train" / "loose.jpg").write_bytes((photos / "train" / "dark" / "0.jpg").read_bytes())
    asked = ["train.steps=1", "data.split=train"]
    with pytest.raises(UserError, match="loose.jpg"):  # with labels or without: it is for the person to say
        recipe.run(config.load(photos / "photos.yaml", asked))
    folder = recipe.run(config.load(photos / "photos.yaml", [*asked, "data.labels=folders"]))
    assert "images taken: 30; left out: " in caplog.text and "notes.xyz" in caplog.text and "loose.jpg" in caplog.text
    taken = runs.read_info(folder).images
    assert taken["taken"] == 30 and [part["count"] for part in taken["left_out"]] == [1, 1]
    assert runs.read_scores(folder).about["images"]["train"] == taken


@pytest.mark.slow
def test_which_image_of_a_sample_is_meant_is_for_the_recipe_to_say(photos, tmp_path):
    images = sorted((photos / "unlabeled").glob("*.jpg"))
    with tarfile.open(tmp_path / "unlabeled-000.tar", "w") as tar:
        for image, other in zip(images, reversed(images), strict=True):
            tar.add(image, f"{image.stem}.jpg")
            tar.add(other, f"{image.stem}.seg.jpg")
    shards = ["data.dataset=webdataset", "score=[]", "train.steps=1"]
    one, two = (
        recipe.run(config.load(photos / "photos.yaml", [*shards, f"data.image={end}", f"name={end}"]))
        for end in ("jpg", "seg.jpg")
    )
    origins = [runs.read_info(folder).origin["training image contents"] for folder in (one, two)]
    assert origins[0] != origins[1]
    taken = runs.read_info(one).images
    assert taken["taken"] == 50 and sum(part["count"] for part in taken["left_out"]) == 50
