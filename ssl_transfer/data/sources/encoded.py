"""Encoded images on disk, listed and not decoded: what resident and streamed pixels are made from."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ssl_transfer.data.sources.decode import decode
from ssl_transfer.data.sources.inventory import Inventory, Tally
from ssl_transfer.data.sources.storage import FileNames, FileStorage, Storage

UNREADABLE = "cannot be read"  # so begins the reason for an image whose bytes the disk did not give

_ROWS_A_THREAD = 16  # taken at a time
_MOST_CLASSES = 10**7  # a larger number is no class but something else, and layers are made with a row for each class


@dataclass(frozen=True)
class EncodedImages:
    """The encoded images of one split at ``places`` of ``storage``, with their labels if they have any.

    ``inventory`` says what was left out where they were listed.
    """

    storage: Storage
    places: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"] | None
    classes: int | None
    name: str
    split: str
    class_names: tuple[str, ...] | None = None
    inventory: Inventory = Inventory(0)

    @classmethod
    def of_all(
        cls,
        storage: Storage,
        labels: Sequence[int] | None,
        *,
        name: str,
        split: str,
        class_names: Sequence[str] | None = None,
        left_out: Tally | None = None,
    ) -> "EncodedImages":
        """All of ``storage``, in its order.

        Raises:
            ValueError: a label is too large to be the number of a class.
        """
        if labels is not None:
            check_label(max(labels), name, split)
        numbers = None if labels is None else torch.tensor(labels, dtype=torch.long)
        names = None if class_names is None else tuple(class_names)
        classes = None if numbers is None else int(numbers.max()) + 1 if names is None else len(names)
        inventory = (left_out or Tally()).inventory(len(storage))
        return cls(storage, torch.arange(len(storage)), numbers, classes, name, split, names, inventory)

    @classmethod
    def of_files(
        cls,
        paths: Sequence[str],
        labels: Sequence[int] | None,
        *,
        root: Path,
        name: str,
        split: str,
        class_names: Sequence[str] | None = None,
        left_out: Tally | None = None,
    ) -> "EncodedImages":
        """The images of the files with these paths below ``root``, in this order."""
        storage = FileStorage(paths, root)
        return cls.of_all(storage, labels, name=name, split=split, class_names=class_names, left_out=left_out)

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the files' names and samples of their content, in this order."""
        return hashlib.sha256(self.storage.digests(self.places.numpy())).hexdigest()[:16]

    def select(self, rows: Int64[Tensor, " m"]) -> "EncodedImages":
        """The images at these rows, in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, places=self.places[rows], labels=labels)

    @property
    def files(self) -> FileNames:
        """The name of each row's file within the data set."""
        return FileNames(self.storage, self.places)

    def file_name(self, row: int) -> str:
        """What a person calls the file of this row."""
        return self.storage.name(int(self.places[row]))

    def decode(self, rows: Sequence[int], size: int) -> tuple[UInt8[Tensor, "n 3 size size"], dict[int, str]]:
        """The pixels of these rows, and the reason for each that cannot be decoded, whose pixels are zero."""
        pixels = torch.zeros(len(rows), 3, size, size, dtype=torch.uint8)
        broken = {}
        for place, row in enumerate(rows):
            try:
                pixels[place] = decode(self.storage.read(int(self.places[row])), size)
            except OSError as error:  # of the disk: decoding has no other than ValueError
                broken[row] = f"{UNREADABLE}: {error.strerror or error}"
            except ValueError as error:
                broken[row] = str(error)
        return pixels, broken

    def decode_in_threads(
        self, rows: Sequence[int], size: int
    ) -> tuple[UInt8[Tensor, "n 3 size size"], dict[int, str]]:
        """What :meth:`decode` gives, by a thread for each core: decoding leaves Python's lock to others."""
        pixels = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)
        broken: dict[int, str] = {}

        def decode_part(start: int) -> dict[int, str]:
            part, why = self.decode(rows[start : start + _ROWS_A_THREAD], size)
            pixels[start : start + len(part)] = part
            return why

        with ThreadPoolExecutor() as pool:
            for why in pool.map(decode_part, range(0, len(rows), _ROWS_A_THREAD)):
                broken |= why
        return pixels, broken


def check_label(label: int, name: str, split: str) -> None:
    """Refuse the largest label of a split where it can be the number of no class.

    Raises:
        ValueError: it is too large.
    """
    if label >= _MOST_CLASSES:
        raise ValueError(f"{name} {split} has the label {label}: number its classes from 0 on.")
