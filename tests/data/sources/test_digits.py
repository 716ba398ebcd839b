from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from ssl_transfer.data import load_images


def test_digits_are_split_without_overlap_into_all_of_scikit_learns():
    train, test = (load_images("digits", Path(), split=split, download=False) for split in ("train", "test"))
    together = torch.cat((train.pixels, test.pixels)).flatten(1)
    published = torch.from_numpy((load_digits().data * 255 / 16).round().astype(np.uint8))
    assert sorted(together.tolist()) == sorted(published.tolist())
    assert (train.pixels.shape[1:], train.classes, len(train) + len(test)) == ((1, 8, 8), 10, 1797)
    for label in range(10):
        of_class = [int((images.labels == label).sum()) for images in (train, test)]
        assert of_class[1] == sum(of_class) // 5


def test_digits_keep_their_labels():
    test, data = load_images("digits", Path(), split="test", download=False), load_digits()
    by_image = {tuple(row): label for row, label in zip(data.data.astype(int).tolist(), data.target, strict=True)}
    back = (test.pixels.flatten(1).double() * 16 / 255).round().long()
    assert [by_image[tuple(row)] for row in back.tolist()] == test.labels.tolist()


def test_statistics_of_digits_are_those_of_the_training_split():
    train = load_images("digits", Path(), split="train", download=False)
    values = train.pixels.double() / 255
    assert abs(values.mean() - train.mean[0]) < 1e-3 and abs(values.std() - train.std[0]) < 1e-3
