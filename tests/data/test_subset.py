from pathlib import Path

import pytest
import torch

from ssl_transfer.data import load_images
from ssl_transfer.data.subset import first_images

IMAGES = load_images("digits", Path(), split="train", download=False)


def test_a_part_is_the_same_every_time_and_in_the_larger_part():
    small, large = first_images(IMAGES, 100), first_images(IMAGES, 300)
    assert len(small) == 100 and small.fingerprint == first_images(IMAGES, 100).fingerprint
    assert torch.equal(large.pixels[:100], small.pixels) and torch.equal(large.labels[:100], small.labels)


def test_a_part_has_every_class_and_no_image_twice():
    part = first_images(IMAGES, len(IMAGES))
    assert first_images(IMAGES, 200).labels.bincount().min() > 5
    assert torch.equal(part.labels.bincount(), IMAGES.labels.bincount())
    assert not torch.equal(part.labels, IMAGES.labels)


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="digits train has 1442 images, not 1443: ask for fewer"):
        first_images(IMAGES, 1443)
