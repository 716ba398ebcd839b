from pathlib import Path

import pytest
import torch

from ssl_transfer.data import load_images


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean cifar100"):
        load_images("cifar-100", Path(), split="train", download=False)


def test_an_unknown_split_gets_the_list():
    with pytest.raises(ValueError, match="no split val: choose one of train, test"):
        load_images("digits", Path(), split="val", download=False)


@pytest.mark.parametrize(
    "dataset, option, words",
    [
        ("cifar10", dict(labels="none"), "labels none is for dataset folder, hf, webdataset, and not for cifar10"),
        ("cub", dict(labels="folders"), "labels folders is for dataset folder"),
        ("folder", dict(image="jpg"), "image jpg is for dataset hf, webdataset, and not for folder"),
        ("webdataset", dict(train_classes=3), "train_classes 3 is for dataset folder, and not for webdataset"),
    ],
)
def test_a_choice_that_a_data_set_does_not_have_is_refused(tmp_path, dataset, option, words):
    with pytest.raises(ValueError, match=words):
        load_images(dataset, tmp_path, split="train", image_size=8, **option)


@pytest.mark.parametrize(
    "option, words",
    [
        (dict(image_size=None), "dataset folder needs image_size"),
        (dict(image_size=0), "image_size 0 must be 1 to 16384"),
        (dict(image_size=100_000), "image_size 100000 must be 1 to 16384"),
        (dict(on_error="ignore"), "on_error ignore must be raise or skip"),
        (dict(resident="no"), "resident no must be auto, True or False"),
        (dict(workers=-1), "workers -1 must be 0 or more"),
    ],
)
def test_an_impossible_way_to_decode_is_refused_before_a_file_is_looked_for(option, words):
    with pytest.raises(ValueError, match=words):
        load_images("folder", "nowhere", split="train", **dict(image_size=8) | option)


@pytest.mark.parametrize("dataset", ["folder", "hf", "webdataset", "cub", "cars", "sop", "in_shop"])
def test_a_root_that_cannot_be_is_refused_in_a_sentence(dataset):
    with pytest.raises((ValueError, FileNotFoundError), match="nnnnn"):
        load_images(dataset, "n" * 5000, split="train", image_size=8)


def test_a_fingerprint_tells_pixels_labels_and_order_apart():
    images = load_images("digits", Path(), split="test", download=False)
    again = load_images("digits", Path(), split="test", download=False)
    assert images.fingerprint == again.fingerprint and len(images.fingerprint) == 16
    other_order = images.subset(torch.arange(len(images)).flip(0))
    relabeled = images.subset(torch.arange(len(images)))
    relabeled.labels[0] += 1
    prints = {images.fingerprint, other_order.fingerprint, relabeled.fingerprint}
    assert len(prints) == 3


def test_a_subset_keeps_pixels_and_labels_together():
    images = load_images("digits", Path(), split="test", download=False)
    some = images.subset(torch.tensor([5, 2]))
    assert torch.equal(some.pixels[1], images.pixels[2]) and some.labels.tolist() == images.labels[[5, 2]].tolist()
