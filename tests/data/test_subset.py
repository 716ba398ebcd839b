from pathlib import Path

import pytest
import torch

from ssl_transfer.data import load_images
from ssl_transfer.data.subset import held_out_images, learned_images

IMAGES = load_images("digits", Path(), split="train", download=False)


def test_a_part_is_the_same_every_time_and_in_the_larger_part():
    small, large = learned_images(IMAGES, 100), learned_images(IMAGES, 300)
    assert len(small) == 100 and small.fingerprint == learned_images(IMAGES, 100).fingerprint
    assert torch.equal(large.pixels[:100], small.pixels) and torch.equal(large.labels[:100], small.labels)


def test_a_part_has_every_class_and_no_image_twice():
    part = learned_images(IMAGES, len(IMAGES))
    assert learned_images(IMAGES, 200).labels.bincount().min() > 5
    assert torch.equal(part.labels.bincount(), IMAGES.labels.bincount())
    assert not torch.equal(part.labels, IMAGES.labels)


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="digits train has 1442 images, not 1443: ask for fewer"):
        learned_images(IMAGES, 1443)


def rows(images):
    """Which images of IMAGES these are; no two of those are equal."""
    same = (images.pixels[:, None] == IMAGES.pixels[None]).flatten(2).all(dim=2)
    assert same.sum(dim=1).eq(1).all()
    return set(same.nonzero()[:, 1].tolist())


def test_what_is_held_out_and_what_is_learned_from_are_the_whole_and_share_nothing():
    learned, held_out = learned_images(IMAGES, held_out=300), held_out_images(IMAGES, 300)
    assert (len(learned), len(held_out)) == (1142, 300)
    assert rows(learned) | rows(held_out) == set(range(1442)) and not rows(learned) & rows(held_out)
    assert held_out.split == "held out of train" and held_out.labels.bincount().min() > 5


def test_what_is_held_out_does_not_depend_on_how_many_are_learned_from():
    few, many = (learned_images(IMAGES, count, 300) for count in (100, 1142))
    assert rows(few) < rows(many) and not rows(many) & rows(held_out_images(IMAGES, 300))
    assert rows(held_out_images(IMAGES, 100)) < rows(held_out_images(IMAGES, 300))


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (lambda: learned_images(IMAGES, 1143, 300), "1143 to learn from and 300 to hold out"),
        (lambda: learned_images(IMAGES, held_out=1442), "1 to learn from and 1442 to hold out"),
        (lambda: held_out_images(IMAGES, 1442), "1 to learn from and 1442 to hold out"),
    ],
)
def test_what_leaves_nothing_to_learn_from_is_refused(part, wanted):
    with pytest.raises(ValueError, match=f"digits train has 1442 images, not {wanted}: ask for fewer"):
        part()
