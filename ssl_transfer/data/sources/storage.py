"""Where encoded images lie: read by their place, and known again by their content."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64
from torch import Tensor

_WHOLE = 2**16  # bytes of a file that a sample holds all of; of a longer one it holds pieces
_PIECE, _PIECES = 2**11, 8
_DIGEST_BYTES = 16
_PLACES_A_THREAD = 256  # taken at a time


class Storage(ABC):
    """The bytes of images by their place; picklable, since worker processes read them."""

    _digests: np.ndarray | None = None  # those that were asked for, zeros for the others

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, place: int) -> bytes:
        """The image's file.

        Raises:
            OSError: the disk does not give it.
            ValueError: there is no image at this place.
        """

    @abstractmethod
    def name(self, place: int) -> str:
        """What a person calls the file."""

    @abstractmethod
    def key(self, place: int) -> str:
        """The file's name within its data set, wherever that lies."""

    @abstractmethod
    def sample(self, place: int) -> bytes:
        """What tells the file's content from that of others: :func:`sampled` of it. Raises what ``read`` raises."""

    @abstractmethod
    def changed(self) -> Int64[np.ndarray, " _"]:
        """When each file on disk was changed last, in nanoseconds since 1970."""

    def digests(self, places: Sequence[int] | Int64[np.ndarray, " n"]) -> bytes:
        """Sixteen bytes for each place, of the file's key and a sample of its content, one after another.

        They are the same wherever the files lie and whenever they were changed. A file that cannot be read has a digest
        that says so.
        """
        if self._digests is None:
            self._digests = np.zeros((len(self), _DIGEST_BYTES), np.uint8)
        digests, wanted = self._digests, np.asarray(places, dtype=np.int64)
        unknown = wanted[~digests[wanted].any(axis=1)].tolist()

        def digest_part(start: int) -> None:
            for place in unknown[start : start + _PLACES_A_THREAD]:
                digests[place] = np.frombuffer(self._digest(place), np.uint8)

        with ThreadPoolExecutor() as pool:  # threads, since most of the time goes into waiting for a disk
            list(pool.map(digest_part, range(0, len(unknown), _PLACES_A_THREAD)))
        return digests[wanted].tobytes()

    def _digest(self, place: int) -> bytes:
        try:
            content = self.sample(place)
        except (OSError, ValueError):
            content = b"cannot be read"
        return hashlib.sha256(os.fsencode(self.key(place)) + b"\0" + content).digest()[:_DIGEST_BYTES]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_digests": None}  # workers have no use for them


class FileStorage(Storage):
    """One file for each image, by its path below ``root``."""

    def __init__(self, paths: Sequence[str], root: Path):
        self._paths, self._root = list(paths), str(root)
        self._changed = np.array([_changed(self.name(place)) for place in range(len(paths))], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, place: int) -> bytes:
        """The file's content.

        Raises:
            OSError: the file cannot be read, or is a link to one that is not there.
        """
        try:
            with open(self.name(place), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError as error:
            if os.path.islink(self.name(place)):
                raise OSError("it is a link to a file that is not there") from error
            raise

    def name(self, place: int) -> str:
        """The path with its root."""
        return os.path.join(self._root, self._paths[place])

    def key(self, place: int) -> str:
        """The path below the root."""
        return self._paths[place].replace(os.sep, "/")

    def sample(self, place: int) -> bytes:
        """Of the file."""
        return sampled_file(self.name(place))

    def changed(self) -> Int64[np.ndarray, " _"]:
        """For each image its file; 0 for a link to nothing."""
        return self._changed


@dataclass(frozen=True)
class FileNames:
    """The names of images' files within their data set, by row; each is looked up when it is asked for."""

    storage: Storage
    places: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> str:
        return self.storage.key(int(self.places[row]))

    def __iter__(self) -> Iterator[str]:
        return (self.storage.key(place) for place in self.places.tolist())

    def select(self, rows: Int[Tensor, " m"]) -> "FileNames":
        """Those of these rows, in this order."""
        return FileNames(self.storage, self.places[rows.cpu()])


def sampled(size: int, read: Callable[[int, int], bytes]) -> bytes:
    """The size of a file and its content or, of one longer than 64 KiB, eight pieces of 2 KiB from start to end.

    ``read`` gives, from an offset on, this many bytes. Two long files of one size that differ only between those pieces
    have the same sample; of encoded images that takes an uncompressed one with a few pixels changed in place.
    """
    if size <= _WHOLE:
        pieces = [read(0, size)]
    else:
        pieces = [read(place * (size - _PIECE) // (_PIECES - 1), _PIECE) for place in range(_PIECES)]
    return b"".join([b"%d " % size, *pieces])


def sampled_file(path: str, start: int = 0, size: int | None = None) -> bytes:
    """:func:`sampled` of a file, or of ``size`` bytes in it from ``start`` on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        length = os.fstat(descriptor).st_size if size is None else size
        return sampled(length, lambda offset, count: os.pread(descriptor, count, start + offset))
    finally:
        os.close(descriptor)


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:  # a link to nothing
        return 0
