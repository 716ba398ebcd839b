"""What test_augment.py runs in a process of its own, since torch.compile cannot fuse across the checks of shapes."""

import sys
from itertools import product

import torch
from torch._dynamo.utils import counters

from ssl_transfer.data.views.augment import Augment
from tests.reference import augment as reference

JITTER = dict(color_jitter=1.0, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
SIMCLR = JITTER | dict(crop_scale=(0.08, 1.0), flip=0.5, color_jitter=0.8, grayscale=0.2)
GENERATOR = torch.Generator().manual_seed(0)


def images(count: int, channels: int, size: int) -> torch.Tensor:
    """Blotches of color, some of one color."""
    coarse = torch.rand(count, channels, 4, 4, generator=GENERATOR)
    coarse[::9] = coarse[::9, :, :1, :1]
    return torch.nn.functional.interpolate(coarse, size).mul(255).to(torch.uint8)


def furthest_from_torchvision() -> float:
    """The largest difference of jittered color and gray images from torchvision's, in all orders of the jitter."""
    furthest = 0.0
    for channels, more in product((3, 1), (dict(), dict(grayscale=0.5), dict(grayscale=0.5, solarize=0.5))):
        pictures, augment = images(120, channels, 32), Augment(32, **JITTER, **more, compiled=True)
        parameters = augment.parameters(32, 32, seed=0, epoch=0, index=torch.arange(120), view=0)
        difference = augment.apply(pictures, parameters) - reference.apply(augment, pictures, parameters)
        furthest = max(furthest, float(difference.abs().max()))
    return furthest


def views_that_depend_on_their_batch(**more: float) -> int:
    """How many parts of a batch have other views than they have within it."""
    pictures, augment = images(700, 3, 32), Augment(32, **SIMCLR, **more, compiled=True)
    index, address = torch.arange(700).flip(0), dict(seed=0, epoch=0, view=0)
    together = augment(pictures[index], **address, index=index)
    parts = [slice(start, start + length) for start in (0, 1, 3, 40, 300) for length in (1, 2, 7, 37, 300)]
    alone = (augment(pictures[index[some]], **address, index=index[some]) for some in parts)
    return sum(not torch.equal(views, together[some]) for views, some in zip(alone, parts, strict=True))


def more_compilations_for_other_numbers_of_images() -> int:
    """How many are needed for numbers of images that were not met before, after those from 1 to 11, and 300."""
    augment = Augment(32, **SIMCLR, compiled=True)

    def views(count: int) -> None:
        augment(images(count, 3, 32), seed=0, epoch=0, index=torch.arange(count), view=0)

    for count in (300, *range(1, 12)):
        views(count)
    before = counters["stats"]["unique_graphs"]
    for count in (12, 13, 37, 150, 299):
        views(count)
    return counters["stats"]["unique_graphs"] - before


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    more = more_compilations_for_other_numbers_of_images()
    depending = views_that_depend_on_their_batch() + views_that_depend_on_their_batch(blur=0.5)
    print(depending, more, furthest_from_torchvision())
