"""What scoring would refuse in the end is refused before anything is trained, in the same words."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_transfer.data import Images
from ssl_transfer.data.sources.encoded import EncodedImages, FileStorage
from ssl_transfer.data.sources.streaming import StreamedPixels
from ssl_transfer.scores.base import ScoredImages
from tests.scores.subjects import EVERY_KIND, kinds, subject


def images() -> tuple[Images, Images]:
    """120 training and 60 test images of four classes."""
    train, test = subject("clouds", 0).images
    return train, test


def check(asked: list[dict], train: Images, test: Images, resident="auto", teacher=True, classes=4) -> None:
    for kind in kinds(*asked):
        kind.check(ScoredImages(train, test, resident=resident, teacher=teacher, classes=classes))


def streamed(given: Images) -> Images:
    encoded = EncodedImages(FileStorage([], Path()), torch.arange(len(given)), given.labels, 4, "clouds", given.split)
    return replace(given, pixels=StreamedPixels(encoded, 4, 4, 0))


def test_what_can_be_scored_is_let_through():
    every = [*EVERY_KIND, {"kind": "classification"}, {"kind": "best_on_test", "k": [1]}]
    check(every, *images())
    check(every, *map(streamed, images()))  # but small enough to be held


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ({"kind": "knn", "k": [20, 200]}, "k is 200 but there are 120 images to search"),
        ({"kind": "few_shot", "labels_per_class": [1, 100]}, "labels_per_class has 100 but the smallest class has"),
        ({"kind": "retrieval", "k": [60]}, "k is 60 but there are 59 images to search"),
        ({"kind": "best_on_test", "k": [60]}, "k is 60 but there are 59 images to search"),
        ({"kind": "agreement", "k": 60}, "k is 60 but there are 59 images to search"),
    ],
)
def test_too_few_images_are_told(kind, words):
    with pytest.raises(ValueError, match=words):
        check([kind], *images())


LEARNING = ["knn", "linear_probe", "few_shot", "finetune"]


@pytest.mark.parametrize("kind", LEARNING)
def test_what_learns_from_labels_needs_them_and_the_classes_of_the_test_images(kind):
    train, test = images()
    asked = [{"kind": kind, "k": [5]} if kind == "knn" else {"kind": kind}]
    with pytest.raises(ValueError, match="train_y has 120 of 120 labels missing"):
        check(asked, replace(train, labels=None), test)
    with pytest.raises(ValueError, match="test_y has 1 classes that are absent from train_y"):
        check(asked, train.subset((train.labels != 2).nonzero()[:, 0]), test)
    with pytest.raises(ValueError, match="train_y has the class 0 alone"):
        check(asked, train.subset((train.labels == 0).nonzero()[:, 0]), test)


@pytest.mark.parametrize("kind", [*LEARNING, "retrieval", "clustering", "classification", "best_on_test"])
def test_test_images_without_labels_can_only_be_compared(kind):
    train, test = images()
    unlabeled = replace(test, labels=None)
    with pytest.raises(ValueError, match="test_y has 60 of 60 labels missing"):
        check([{"kind": kind}], train, unlabeled)
    check([{"kind": "agreement"}, {"kind": "monitor", "every": 1}], replace(train, labels=None), unlabeled)


def test_other_mistakes_are_told_in_the_words_of_their_probe():
    train, test = images()
    one_each = torch.stack([(train.labels == label).nonzero()[0, 0] for label in range(4)])
    with pytest.raises(ValueError, match="every class has a single training image"):
        check([{"kind": "linear_probe"}], train.subset(one_each), test)
    with pytest.raises(ValueError, match="fine-tuning needs images in memory, and clouds is streamed"):
        check([{"kind": "finetune"}], *map(streamed, (train, test)), resident=False)
    with pytest.raises(ValueError, match="every image is alone in its class"):
        check([{"kind": "retrieval", "k": [1]}], train, replace(test, labels=torch.arange(60)))
    with pytest.raises(ValueError, match="test_y has the label 3 but the classifier knows only 3 classes"):
        check([{"kind": "classification"}], train, test, classes=3)
    check([{"kind": "agreement", "k": 60}], train, test, teacher=False)  # not measured
