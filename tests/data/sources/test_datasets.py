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
