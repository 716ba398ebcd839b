"""Augmented training images, for the measures that train on what a network makes of them."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor, nn

from ssl_transfer.data import PRESETS, Augment, Images
from ssl_transfer.distributed import gather_shards, shard
from ssl_transfer.features.extraction import computing_in
from ssl_transfer.features.model_features import ModelFeatures


def trainable(features: ModelFeatures) -> tuple[nn.Module, Images, Images]:
    """The network of ``features``, and the images of both splits.

    Raises:
        ValueError: they are a table without either.
    """
    if features.network is None or features.images is None:
        raise ValueError(f"{features.name} is a table of features; this protocol needs the network and its images.")
    return features.network, *features.images


def augmentation(preset: str, images: Images, *, seed: int) -> Callable[[Tensor, int, Tensor], Tensor]:
    """A function from pixels, the epoch and their rows to views: those of an image are its own in every batch."""
    augment = Augment(images.pixels.shape[-1], **PRESETS[preset][0])

    def view(pixels: Tensor, epoch: int, rows: Tensor) -> Tensor:
        return augment(pixels, seed=seed, epoch=epoch, index=rows, view=0)

    return view


def augmented_features(
    features: ModelFeatures, preset: str, seed: int, fold: Tensor | None, epoch: int, rows: Tensor
) -> Tensor:
    """The network's features of some training images as an epoch shows them; processes share the work.

    ``rows`` are places in ``fold``, or in the whole split.
    """
    network, images, _ = trainable(features)
    own = rows[shard(len(rows))]
    own = own if fold is None else fold[own]
    views = augmentation(preset, images, seed=seed)(images.pixels[own], epoch, own)
    with computing_in(features.precision, images):
        embedded = _embed(network, views, width=features.features.train_x.shape[1])
    return gather_shards(embedded, len(rows))


@torch.no_grad()
def _embed(network: Callable[[Tensor], Tensor], views: Tensor, width: int) -> Tensor:
    return network(views).float() if len(views) else views.new_empty(0, width)


def held_pixels(images: Images) -> Tensor:
    """The pixels of images that are held in memory.

    Raises:
        ValueError: they are streamed.
    """
    if not isinstance(images.pixels, Tensor):
        refuse_streamed(images)
    return images.pixels


def refuse_streamed(images: Images) -> NoReturn:
    """Raise the error that streamed images cannot be fine-tuned on.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"fine-tuning needs images in memory, and {images.name} is streamed; set data.resident=true.")
