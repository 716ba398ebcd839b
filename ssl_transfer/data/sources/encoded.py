"""Encoded images on disk, listed and not decoded: what resident and streamed pixels are made from."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ssl_transfer.data.sources.decode import decode

UNREADABLE = "cannot be read"  # so begins the reason for an image whose bytes the disk did not give

_ROWS_A_THREAD = 16  # taken at a time


@runtime_checkable
class Storage(Protocol):
    """The bytes of images by their place; picklable, since worker processes read them."""

    def __len__(self) -> int: ...

    def read(self, place: int) -> bytes:
        """The file's content."""
        ...

    def name(self, place: int) -> str:
        """What a person calls the file."""
        ...

    def key(self, place: int) -> str:
        """The file's name within its data set, wherever that lies, and its size."""
        ...

    def modified(self) -> float:
        """When any of it was changed last, in seconds since 1970."""
        ...


class FileStorage:
    """One file for each image."""

    def __init__(self, paths: Sequence[Path], root: Path):
        self.root = str(root)
        self.paths = [str(path) for path in paths]
        status = [path.stat() for path in paths]
        self.sizes = np.array([entry.st_size for entry in status])
        self._modified = max((entry.st_mtime for entry in status), default=0.0)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, place: int) -> bytes:
        """The file's content."""
        return Path(self.paths[place]).read_bytes()

    def name(self, place: int) -> str:
        """The path."""
        return self.paths[place]

    def key(self, place: int) -> str:
        """The path below the root, and the size."""
        return f"{Path(self.paths[place]).relative_to(self.root).as_posix()} {self.sizes[place]}"

    def modified(self) -> float:
        """When the newest file was changed."""
        return self._modified


@dataclass(frozen=True)
class EncodedImages:
    """The encoded images of one split at ``places`` of ``storage``, with their labels if they have any."""

    storage: Storage
    places: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"] | None
    classes: int | None
    name: str
    split: str
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of_all(
        cls,
        storage: Storage,
        labels: Sequence[int] | None,
        *,
        name: str,
        split: str,
        class_names: Sequence[str] | None = None,
    ) -> "EncodedImages":
        """All of ``storage``, in its order."""
        numbers = None if labels is None else torch.tensor(labels, dtype=torch.long)
        names = None if class_names is None else tuple(class_names)
        classes = None if numbers is None else int(numbers.max()) + 1 if names is None else len(names)
        return cls(storage, torch.arange(len(storage)), numbers, classes, name, split, names)

    @classmethod
    def of_files(
        cls,
        paths: Sequence[Path],
        labels: Sequence[int] | None,
        *,
        root: Path,
        name: str,
        split: str,
        class_names: Sequence[str] | None = None,
    ) -> "EncodedImages":
        """The images of these files below ``root``, in this order."""
        return cls.of_all(FileStorage(paths, root), labels, name=name, split=split, class_names=class_names)

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the files' names and sizes: no file is read."""
        digest = hashlib.sha256()
        for place in self.places.tolist():
            digest.update(self.storage.key(place).encode() + b"\n")
        return digest.hexdigest()[:16]

    def select(self, rows: Int64[Tensor, " m"]) -> "EncodedImages":
        """The images at these rows, in this order."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, places=self.places[rows], labels=labels)

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
                broken[row] = f"{UNREADABLE}: {error}"
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
