"""One model's features of a labeled data set, which are all that most measures look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_transfer.catalog.roles import Role
from ssl_transfer.data import Images
from ssl_transfer.features.extraction import (
    Precision,
    compute_features,
    features_key,
    kept_features,
    layer_of,
    placed,
)
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.probes import Features
from ssl_transfer.probes.checks import check_features

# The baseline of raw pixels is for images of up to 64 x 64: a probe of larger ones takes longer than all the others.
RAW_PIXELS = 3 * 64 * 64


def shows_pixels(images: Images) -> bool:
    """Whether raw pixels are a baseline for models of these images: they are held, and small."""
    return images.resident and images.pixels.shape[1:].numel() <= RAW_PIXELS


@dataclass(frozen=True)
class ModelFeatures:
    """Whose features these are, and how they were computed.

    ``layer`` is what was asked for; the protocol says what was given, which for the pixels is another. ``network``
    gives the features of images in [0, 1], for the measures that show it augmented ``images``.
    """

    name: str
    features: Features
    protocol: dict[str, Any]
    role: Role = "other"
    layer: str = "features"
    network: nn.Module | None = None
    images: tuple[Images, Images] | None = None
    precision: Precision = "float32"

    @cached_property
    def held(self) -> Features:
        """The features where their labels are. Those that are mapped from a file are elsewhere if that is a GPU, which
        matters to all probes but those that look at a part of them at a time.
        """
        given = self.features
        train_x, test_x = given.train_x.to(given.train_y.device), given.test_x.to(given.test_y.device)
        return Features(train_x, given.train_y, test_x, given.test_y)


def features_of(
    name: str,
    model: EmbeddingModel | None,
    splits: Sequence[Images],
    *,
    role: Role = "other",
    layer: str = "features",
    train_features: bool = True,
    precision: Precision = "float32",
    cache: Path | None = None,
    must_keep: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> ModelFeatures:
    """Features of both splits by ``model``, which is put in eval mode; without a model, the pixels themselves.

    ``layer`` is ``features``, ``output`` (what the model gives), the head's ``projection`` or ``embedding``, or the
    name of a layer of the timm network; it is computed in ``precision``. Features are read from the folder ``cache`` if
    it has those of the same weights, images, preprocessing, layer and precision, and written there otherwise; where
    that is refused, a warning says so, or with ``must_keep`` an error. Where no measure looks at those of the training
    images, ``train_features`` is off and there are none. ``advance`` is called with numbers of computed images.

    Raises:
        ValueError: the model has no such layer, or its features are not finite.
        OSError: the features cannot be written, and ``must_keep`` is on.
    """
    # Placed also where kept features are read: some measures go on to show the network other images.
    network = placed(layer_of(model, layer), splits[0])
    key = {} if model is None else features_key(model, layer, precision)

    def features(images: Images) -> Tensor:
        if model is None:
            x = compute_features(None, images)
        else:
            x = kept_features(
                network,
                images,
                key=key,
                folder=cache,
                precision=precision,
                must_keep=must_keep,
                advance=advance,
            )
        check_features(x, f"{name} on {images.name} {images.split}")
        return x

    train, test = splits
    *train_x, test_x = [features(images) for images in ((train, test) if train_features else (test,))]
    protocol = {
        "layer": "pixels" if model is None else layer,
        "width": test_x.shape[1],
        "precision": "float32" if model is None else precision,
        "data": train.name,
        "n_train": len(train),
        "n_test": len(test),
        "test_split": test.split,
        "fingerprints": {images.split: images.fingerprint for images in splits},
        **{what: value for what, value in key.items() if what in ("weights", "preprocessing")},
    }
    none = test_x[:0], labels_of(test)[:0]
    learned_from = (train_x[0], labels_of(train)) if train_x else none
    return ModelFeatures(
        name, Features(*learned_from, test_x, labels_of(test)), protocol, role, layer, network, (train, test), precision
    )


def labels_of(images: Images) -> Tensor:
    """The labels, all -1 where there are none: probes that need labels refuse those in their own words."""
    if images.labels is None:
        return torch.full((len(images),), -1, device=images.pixels.device)
    return images.labels
