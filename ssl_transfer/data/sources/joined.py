"""Two lists of images as one: the parts of a training split that a data set predefines."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.storage import FileNames, Storage
from ssl_transfer.data.sources.streaming import StreamedPixels


class JoinedStorage(Storage):
    """The images of several storages, one after another."""

    def __init__(self, parts: Sequence[Storage]):
        self._parts = list(parts)
        self._ends = list(accumulate(map(len, parts)))

    def _find(self, place: int) -> tuple[Storage, int]:
        part = bisect_right(self._ends, place)
        return self._parts[part], place - (self._ends[part - 1] if part else 0)

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, place: int) -> bytes:
        """The image's file."""
        part, own = self._find(place)
        return part.read(own)

    def name(self, place: int) -> str:
        """As its own storage calls it."""
        part, own = self._find(place)
        return part.name(own)

    def key(self, place: int) -> str:
        """As its own storage has it."""
        part, own = self._find(place)
        return part.key(own)

    def sample(self, place: int) -> bytes:
        """As its own storage has it."""
        part, own = self._find(place)
        return part.sample(own)

    def changed(self) -> Int64[np.ndarray, " _"]:
        """Of one storage after another."""
        return np.concatenate([part.changed() for part in self._parts])


def join(first: Images, second: Images) -> Images:
    """The images of two splits of one data set, of the same classes, as one split named after both.

    Raises:
        ValueError: one is held in memory and the other is not, or one has labels and the other has none.
    """
    if first.resident is not second.resident or (first.labels is None) is not (second.labels is None):
        raise ValueError(f"{first.name} {first.split} and {second.split} are not images of one kind to be joined.")
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = torch.cat([first.labels, second.labels])
    pixels: Tensor | StreamedPixels
    files = None
    if isinstance(first.pixels, StreamedPixels) and isinstance(second.pixels, StreamedPixels):
        encoded = _joined(first.pixels.encoded, second.pixels.encoded, labels)
        pixels, files = replace(first.pixels, encoded=encoded), FileNames(encoded.storage, encoded.places)
    else:
        pixels = torch.cat([first.pixels, second.pixels])  # type: ignore[list-item]
    classes = None if first.classes is None or second.classes is None else max(first.classes, second.classes)
    split = f"{first.split}+{second.split}"
    own = replace(first, pixels=pixels, labels=labels, classes=classes, split=split, files=files)
    return replace(own, folds=None, queries=None, inventory=None)


def _joined(first: EncodedImages, second: EncodedImages, labels: Tensor | None) -> EncodedImages:
    places = torch.cat([first.places, len(first.storage) + second.places])
    storage = JoinedStorage([first.storage, second.storage])
    return replace(first, storage=storage, places=places, labels=labels, split=f"{first.split}+{second.split}")
