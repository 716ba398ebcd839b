"""Class-balanced batches: against plain loops over the same random words, and their properties."""

import pytest
import torch

from ssl_transfer.data.counter import CLASSES, MEMBERS
from ssl_transfer.data.sampling import ClassBalanced
from tests.reference import philox as reference

SIZES = [7, 2, 1, 5, 3, 9, 4, 4]  # images of each class


def labels(sizes=SIZES, seed=0) -> torch.Tensor:
    """Classes with gaps in their numbers, their images mixed."""
    every = torch.arange(len(sizes)).mul(3).repeat_interleave(torch.tensor(sizes))
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))]


def word(seed: int, stream: int, epoch: int, place: int, index: int) -> int:
    words = reference.philox((place, index, epoch, stream << 16), (seed & 0xFFFFFFFF, seed >> 32))
    return words[0] * 2**32 + words[1]


def loop(y: list[int], batch_size: int, per_class: int, *, seed: int, epoch: int, place: int) -> list[int]:
    """The same batch with Python's own sorting: classes by their words, then each class's images by theirs."""
    classes = sorted(set(y))
    order = sorted(range(len(classes)), key=lambda number: word(seed, CLASSES, epoch, place, number))
    batch = []
    for number in order[: batch_size // per_class]:
        images = [image for image, label in enumerate(y) if label == classes[number]]
        images.sort(key=lambda image: word(seed, MEMBERS, epoch, place, image))
        batch += [images[count % len(images)] for count in range(per_class)]
    return batch


@pytest.mark.parametrize("batch_size, per_class", [(8, 1), (8, 2), (12, 3), (16, 2), (6, 6)])
def test_a_batch_is_that_of_a_plain_loop(batch_size, per_class):
    y = labels()
    sampler = ClassBalanced(y, batch_size=batch_size, per_class=per_class)
    for seed, epoch, place in [(0, 0, 0), (0, 0, 1), (0, 3, 1), (2**40 + 7, 2, 5)]:
        expected = loop(y.tolist(), batch_size, per_class, seed=seed, epoch=epoch, place=place)
        assert sampler.rows(seed=seed, epoch=epoch, place=place).tolist() == expected


def test_every_batch_has_its_images_per_class_and_repeats_only_where_a_class_is_too_small():
    y = labels()
    size = dict(zip(*[part.tolist() for part in y.unique(return_counts=True)], strict=True))
    sampler = ClassBalanced(y, batch_size=12, per_class=3)
    for place in range(50):
        rows = sampler.rows(seed=1, epoch=0, place=place)
        found, counts = y[rows].unique(return_counts=True)
        assert len(found) == 4 and counts.tolist() == [3] * 4
        for label in found.tolist():
            assert len(rows[y[rows] == label].unique()) == min(3, size[label])


def test_classes_and_their_images_are_drawn_evenly():
    y = torch.arange(6).repeat_interleave(5)
    sampler = ClassBalanced(y, batch_size=4, per_class=2)
    rows = torch.cat([sampler.rows(seed=3, epoch=epoch, place=0) for epoch in range(750)])
    counts = rows.bincount(minlength=30)
    # Each image is one of 4 in 30: 100 expected, sd of a binomial 9.3; 4.5 sd for the largest of thirty.
    assert (counts - 100).abs().max() < 42


def test_batches_differ_by_seed_epoch_and_place():
    sampler = ClassBalanced(labels(), batch_size=8, per_class=2)
    batches = [
        tuple(sampler.rows(seed=seed, epoch=epoch, place=place).tolist())
        for seed in range(2)
        for epoch in range(2)
        for place in range(4)
    ]
    assert len(set(batches)) == 16


def test_what_cannot_be_balanced_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match="batch_size 9 is not a multiple of per_class 2"):
        ClassBalanced(labels(), batch_size=9, per_class=2)
    with pytest.raises(ValueError, match="needs 10 classes and there are 8"):
        ClassBalanced(labels(), batch_size=20, per_class=2)
