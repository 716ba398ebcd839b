"""A part of a data set that is the same in every run."""

import torch

from ssl_transfer.data import counter
from ssl_transfer.data.images import Images


def first_images(images: Images, count: int) -> Images:
    """The first ``count`` images of one fixed order of the data set, whatever the run's seed.

    A student and its teacher, and runs of several seeds, thus see the same images; a larger part holds a smaller one.
    """
    if count > len(images):
        raise ValueError(f"{images.name} {images.split} has {len(images)} images, not {count}: ask for fewer.")
    return images.subset(counter.shuffle(torch.arange(len(images)), seed=0, stream=counter.SUBSET, epoch=0)[:count])
