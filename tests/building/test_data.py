"""Which images a recipe trains on, learns labels from and scores, and how their classes are numbered."""

import argparse
import weakref

import pytest
import torch
from PIL import Image

from ssl_transfer import config, evaluating
from ssl_transfer.building import data as building_data
from ssl_transfer.building.data import OpenSplits, list_images, scored_splits
from ssl_transfer.context import Context, cores_of_process
from ssl_transfer.data.sources.encoded import EncodedImages

RECIPE = """
name: photos
seed: 0
data: {{dataset: folder, root: {root}, image_size: 8, train: small, split: big, batch_size: 4, augment: digits}}
model: {{backbone: tiny_convnet}}
task: {{kind: simclr, projection_dim: 8}}
optim: {{name: adamw, lr: 1.0e-3}}
train: {{epochs: 1, precision: full, cpu_threads: 1, runs: {root}/runs}}
score: []
"""
SIZES = {"big": (("ash", "beech", "cedar"), 6), "small": (("ash", "cedar"), 5), "test": (("cedar", "ash"), 4)}


@pytest.fixture
def photos(tmp_path):
    """Three trees to train on, two of which are in the labeled and the test split."""
    for split, (trees, count) in SIZES.items():
        for tree in trees:
            (tmp_path / split / tree).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (9, 9), (number, len(tree), 0)).save(tmp_path / split / tree / f"{number}.png")
    (tmp_path / "photos.yaml").write_text(RECIPE.format(root=tmp_path))
    return tmp_path


def test_a_number_of_images_limits_the_split_that_is_trained_on_and_no_other(photos):
    given = config.load(photos / "photos.yaml", ["data.images=7"])
    splits = OpenSplits(Context.start(given))
    sizes = {"training": 7, "train": 10, "test": 8}
    assert {part: len(splits.opened(given, part)) for part in sizes} == sizes
    assert {part: len(list_images(given, part)) for part in sizes} == sizes
    same = config.load(photos / "photos.yaml", ["data.images=7", "data.split=small"])
    assert {part: len(list_images(same, part)) for part in sizes} == sizes | {"train": 7}


def test_a_split_may_be_asked_for_all_of_its_images(photos):
    assert len(list_images(config.load(photos / "photos.yaml", ["data.images=18"]), "training")) == 18


@pytest.mark.parametrize("overrides", [[], ["data.images=7"], ["data.held_out=5", "data.test=held_out"]])
def test_what_is_listed_is_what_is_opened_and_not_read_again(photos, monkeypatch, overrides):
    given = config.load(photos / "photos.yaml", ["data.split=small", *overrides])
    splits, parts = OpenSplits(Context.start(given)), ("training", "train", "test")
    opened = {part: splits.opened(given, part) for part in parts}
    for part in parts:
        assert torch.equal(list_images(given, part).labels, opened[part].labels)
    monkeypatch.setattr(building_data, "load_images", None)
    for part in parts:
        assert splits.listed(given, part).fingerprint == opened[part].fingerprint
        assert len(splits.listed(given, part)) == len(opened[part])


def test_all_that_a_recipe_says_of_its_images_reaches_their_reader(photos, monkeypatch):
    """With the folder of notes on checked images, whose name is written out: by another one all are checked again."""

    class Read(Exception):
        pass

    def read(*place, **settings):
        raise Read(place, settings)

    monkeypatch.setattr(building_data, "load_images", read)

    def asked(*overrides: str) -> tuple:
        with pytest.raises(Read) as found:
            list_images(config.load(photos / "photos.yaml", overrides), "training")
        return found.value.args

    plain = {
        **{"split": "big", "download": False, "image_size": 8, "on_error": "raise", "resident": "auto"},
        **{"workers": cores_of_process(), "memory": photos / "runs" / "checked-images", "train_classes": None},
        **{"labels": "auto", "image": None, "decode": False, "unchecked": False},
    }
    assert asked() == (("folder", str(photos)), plain)
    others = {"image_size": 16, "on_error": "skip", "resident": False, "workers": 3}
    others |= {"labels": "folders", "train_classes": 2}
    overrides = [f"data.{key}={str(value).lower()}" for key, value in others.items()]
    assert asked(*overrides) == (("folder", str(photos)), plain | others)
    arrays = "data={dataset: cifar10, batch_size: 4, augment: simclr}"
    assert [asked(arrays, *more)[1]["download"] for more in ([], ["data.download=false"])] == [True, False]
    assert asked("data.dataset=webdataset", "data.image=seg.jpg")[1]["image"] == "seg.jpg"


def test_a_model_is_scored_on_the_middle_that_its_views_are_as_large_as(photos):
    given = config.load(photos / "photos.yaml", ["data.crop_size=4"])
    scored = OpenSplits(Context.start(given)).scored(given, "test")
    whole = OpenSplits(Context.start(given)).opened(given, "test")
    assert len(scored) == 8 and torch.equal(scored.pixels[:], whole.pixels[:][..., 2:6, 2:6])
    plain = config.load(photos / "photos.yaml")
    assert OpenSplits(Context.start(plain)).scored(plain, "train").pixels.shape == (10, 3, 8, 8)


def test_what_is_held_out_is_learned_from_by_nobody_and_can_be_scored_instead_of_the_test_split(photos):
    given = config.load(photos / "photos.yaml", ["data.held_out=5", "data.test=held_out", "data.split=small"])
    splits = OpenSplits(Context.start(given))
    trained_on, watched = splits.opened_training(given)
    assert (len(trained_on), len(watched)) == (5, 5)
    assert splits.opened(given, "train").fingerprint == trained_on.fingerprint
    scored = splits.opened(given, "test")
    assert scored.fingerprint == watched.fingerprint and scored.split == "held out of small"
    assert torch.equal(list_images(given, "test").labels, scored.labels)
    colors = [{tuple(image[:, 0, 0].tolist()) for image in images.pixels} for images in (trained_on, scored)]
    assert not colors[0] & colors[1] and len(colors[0] | colors[1]) == 10

    other = config.load(photos / "photos.yaml", ["data.held_out=5"])
    parts = {part: len(splits.opened(other, part)) for part in ("training", "train", "test")}
    assert parts == {"training": 13, "train": 10, "test": 8}


def test_without_anything_held_out_a_monitor_looks_at_what_is_trained_on(photos):
    given = config.load(photos / "photos.yaml")
    trained_on, watched = OpenSplits(Context.start(given)).opened_training(given)
    assert watched is trained_on


@pytest.mark.parametrize(("split", "count"), [("big", 10), ("small", 7)])
def test_a_program_scores_on_the_images_that_the_run_was_scored_on(photos, split, count):
    given = config.load(photos / "photos.yaml", ["data.images=7", f"data.split={split}"])
    (photos / "recipe.yaml").write_text(config.dump(given))
    asked = argparse.Namespace(dataset=None, root=None, image_size=None)
    train, test = evaluating._splits(evaluating._recipe_of(photos, asked), asked)
    assert (train.split, len(train), test.split, len(test)) == ("small", count, "test", 8)
    assert train.fingerprint == OpenSplits(Context.start(given)).opened(given, "train").fingerprint


def test_images_are_listed_without_reading_one(photos, monkeypatch):
    given = config.load(photos / "photos.yaml")
    opened = OpenSplits(Context.start(given)).opened(given, "test")
    monkeypatch.setattr(EncodedImages, "decode", None)
    listed = list_images(given, "test")
    assert torch.equal(listed.labels, opened.labels) and listed.class_names == opened.class_names


def test_a_classifier_is_scored_by_the_numbers_that_it_learned(photos):
    plain = config.load(photos / "photos.yaml")
    train, test = scored_splits(plain, list_images)
    assert train.labels.unique().tolist() == test.labels.unique().tolist() == [0, 1]
    learned = config.load(photos / "photos.yaml", ["task={kind: classify}"])
    train, test = scored_splits(learned, list_images)
    names = list_images(learned, "training").class_names
    assert OpenSplits(Context.start(learned)).class_names(learned) == names == ("ash", "beech", "cedar")
    numbers = {name: number for number, name in enumerate(names)}
    assert train.labels.unique().tolist() == test.labels.unique().tolist() == [numbers["ash"], numbers["cedar"]]
    assert test.class_names[int(test.labels[0])] == "ash" and test.classes == 3


def test_a_split_is_read_once_for_all_recipes_that_name_it_and_let_go_when_another_trains(photos):
    small = config.load(photos / "photos.yaml", ["data.split=small"])
    again = config.load(photos / "photos.yaml", ["data.split=small", "seed=5", "data.batch_size=4"])
    big = config.load(photos / "photos.yaml", ["data.split=big"])  # whose probes learn from the small split
    splits = OpenSplits(Context.start(small))
    read = splits.opened(small, "training")
    assert splits.opened(again, "training") is splits.opened(big, "train") is read

    gone = weakref.ref(splits.opened(big, "training"))
    splits.keep_only(big)
    assert splits.opened(small, "training") is read and gone() is not None
    splits.keep_only(small)
    assert splits.opened(big, "train") is read and gone() is None
    other_size = config.load(photos / "photos.yaml", ["data.split=small", "data.image_size=24", "data.crop_size=16"])
    assert splits.opened(other_size, "training").pixels.shape[-1] == 24
