"""Features in a file: written part by part, continued after a kill, each part checked when the file is opened.

It is a safetensors file of one tensor, ``features``. Its notes are the key that decides the features and, for each part
of its rows, the fingerprint of the images and the hash of their features, which is zeros until the part is written. So
one part at a time is in memory while the file is made, a file that is not whole does no harm, and programs that make
the same one at once write the same bytes. A data set that has grown finds the parts that it shares with the one that
it has grown from, where that is in the same folder.
"""

import json
import logging
import os
import struct
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ssl_transfer.data import Images
from ssl_transfer.files import CHECKSUM, json_hash, named, take_room, write_atomically
from ssl_transfer.models.checkpoint import tensors_hash

log = logging.getLogger(__name__)

ROWS = 16_384  # of a part: a multiple of the images that a network is shown at a time, so that parts change no batch
_ABSENT = "0" * 16  # in the place of a hash


@dataclass(frozen=True)
class _Header:
    """What a file says of itself: its key, the shape of all rows, and two hashes of each part of ``rows`` rows."""

    key: Mapping[str, str]
    shape: tuple[int, int]
    rows: int
    images: tuple[str, ...]
    hashes: tuple[str, ...]

    def content(self) -> bytes:
        """The start of the file, which is as long whatever the hashes are."""
        notes = {**self.key, "rows": str(self.rows), "images": " ".join(self.images), CHECKSUM: " ".join(self.hashes)}
        tensor = {"dtype": "F32", "shape": self.shape, "data_offsets": (0, self.size)}
        text = json.dumps({"__metadata__": notes, "features": tensor}, sort_keys=True).encode()
        text += b" " * (-(8 + len(text)) % 64)  # so that rows start at a multiple of 64
        return struct.pack("<Q", len(text)) + text

    @property
    def size(self) -> int:
        """The bytes of all rows."""
        return 4 * self.shape[0] * self.shape[1]

    @property
    def parts(self) -> list[slice]:
        """The rows of each part."""
        return _parts(self.shape[0], self.rows)


class Place(NamedTuple):
    """A file, its number on the disk, and the shape of the rows in it."""

    path: Path
    inode: int
    shape: tuple[int, int]


class KeptFeatures:
    """The features of ``images`` under ``key``, in a file of ``folder``; one process of a program writes it.

    ``parts`` are the rows of each part. First ask what is :meth:`missing`; once all that is written, :meth:`read`. What
    is read stays after the ``with`` block that this is for.
    """

    def __init__(self, folder: Path, key: Mapping[str, str], images: Images):
        self.key = {**key, "data": images.fingerprint, "split": images.split}
        self.path = folder / f"{json_hash(self.key)}.safetensors"
        self.parts = _parts(len(images), ROWS)
        self.images = images
        self._file: FileIO | None = None  # kept open: another program may put its own in the place of this one
        self._header: _Header | None = None

    def __enter__(self) -> "KeptFeatures":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def missing(self) -> list[int]:
        """The numbers of the parts that are not there, or not what was written; all that is there is read once."""
        try:
            self._file, self._header = _opened(self.path)
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("%s; its features are computed again", error)
        if self._header is not None and (self._header.key, self._header.rows) == (self.key, ROWS):
            bad = _damaged(self.read(), self._header)
            if lost := sum(self._header.hashes[number] != _ABSENT for number in bad):
                log.warning("%s is damaged; %d of its %d parts are computed again", self.path, lost, len(self.parts))
            if not bad or (self._file is not None and self._file.writable()):
                return bad
        self._close()
        return self._adopt(list(range(len(self.parts))))

    def write(self, number: int, features: Float32[Tensor, "m d"]) -> None:
        """Write a part.

        Raises:
            OSError: there is no room for the file, or the system refused; names the file.
        """
        if self._header is None:
            self._begin(features.shape[1])
        assert self._header is not None and self._file is not None
        own = features.detach().cpu().contiguous()
        hashes = [*self._header.hashes]
        hashes[number] = tensors_hash({"features": own})
        self._header = replace(self._header, hashes=tuple(hashes))
        content = self._header.content()
        with named(self.path):
            _write(self._file, len(content) + 4 * self.parts[number].start * own.shape[1], own.numpy().data)
            _write(self._file, 0, memoryview(content))
            os.fsync(self._file.fileno())

    def read(self) -> Float32[Tensor, "n d"]:
        """All rows, mapped: they come into memory as they are looked at, and the system takes that back where it is
        short. They cannot be written to.
        """
        assert self._header is not None and self._file is not None
        return _mapped(self._file, self._header)

    @property
    def begun(self) -> bool:
        """Whether there is a file with some of the parts."""
        return self._header is not None

    @property
    def place(self) -> Place:
        """Where the rows are, for :func:`read_at` of another process that sees the file."""
        assert self._header is not None and self._file is not None
        return Place(self.path, os.fstat(self._file.fileno()).st_ino, self._header.shape)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._header = None

    def _begin(self, width: int) -> None:
        """Make the file, in one step, since somebody may be reading what is there."""
        shape, hashes = (len(self.images), width), (_ABSENT,) * len(self.parts)
        header = _Header(self.key, shape, ROWS, self._fingerprints, hashes)

        def make(temporary: Path) -> None:
            with temporary.open("wb") as file:
                file.write(header.content())
                file.truncate(file.tell() + header.size)
                take_room(file.fileno())

        write_atomically(self.path, make)
        self._file, self._header = FileIO(self.path, "r+"), header

    @cached_property
    def _fingerprints(self) -> tuple[str, ...]:
        """Those of the images of each part, where they are streamed: other data sets are too small for it to matter."""
        if self.images.resident or len(self.parts) == 1:
            return (_ABSENT,) * len(self.parts)
        return tuple(self.images.subset(torch.arange(rows.start, rows.stop)).fingerprint for rows in self.parts)

    def _adopt(self, missing: list[int]) -> list[int]:
        """Take what other files of the folder have of these images; what is missing after that."""
        wanted = {images: number for number, images in enumerate(self._fingerprints) if images != _ABSENT}
        for path in sorted(self.path.parent.glob("*.safetensors")) if wanted else ():
            try:
                file, header = _opened(path)
            except (OSError, ValueError):
                continue
            with file:
                rows = _mapped(file, header)
            if {**header.key, "data": ""} != {**self.key, "data": ""} or header.rows != ROWS:
                continue
            for images, given, part in zip(header.images, header.hashes, header.parts, strict=True):
                if images not in wanted or given != tensors_hash({"features": rows[part]}):
                    continue
                try:
                    self.write(wanted[images], rows[part])
                except OSError as error:
                    log.warning("%s cannot be written (%s)", error.filename, error.strerror)
                    return missing
                missing = [number for number in missing if number != wanted[images]]
                del wanted[images]
        return missing


def read_at(place: Place) -> Float32[Tensor, "n d"]:
    """The rows that another process of this machine found or wrote, mapped.

    Raises:
        OSError: the file is another by now.
    """
    file, header = _opened(place.path)
    with file:
        if os.fstat(file.fileno()).st_ino != place.inode:
            raise OSError(f"{place.path} was written again meanwhile, by another program: start again")
        return _mapped(file, header)


def _opened(path: Path) -> tuple[FileIO, _Header]:
    """A file of features and its header, which is to the bit what it should be, as is the length of the file.

    Raises:
        ValueError: it is no such file.
        OSError: the system refused.
    """
    try:
        file = FileIO(path, "r+")
    except PermissionError:
        file = FileIO(path, "r")
    size, start = os.fstat(file.fileno()).st_size, file.read(8)
    length = int.from_bytes(start, "little")
    text = file.read(length) if length < size else b""
    try:
        content = json.loads(text)
        notes = content["__metadata__"]
        images, hashes = (tuple(notes.pop(name).split(" ")) for name in ("images", CHECKSUM))
        rows, columns = map(int, content["features"]["shape"])
        header = _Header(notes, (rows, columns), int(notes.pop("rows")), images, hashes)
        counts = {len(images), len(hashes), len(header.parts)}
        if header.content() != start + text or size != 8 + length + header.size or len(counts) > 1:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        file.close()
        raise ValueError(f"{path} is damaged, or of an earlier version") from None
    return file, header


def _mapped(file: FileIO, header: _Header) -> Float32[Tensor, "n d"]:
    array = np.memmap(file, np.float32, "r", offset=len(header.content()), shape=header.shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _damaged(rows: Float32[Tensor, "n d"], header: _Header) -> list[int]:
    """The numbers of the parts that are not what was written, or never were."""

    def is_whole(number: int) -> bool:
        expected = header.hashes[number]
        return expected != _ABSENT and tensors_hash({"features": rows[header.parts[number]]}) == expected

    with ThreadPoolExecutor() as pool:
        whole = list(pool.map(is_whole, range(len(header.parts))))
    return [number for number, found in enumerate(whole) if not found]


def _write(file: FileIO, offset: int, content: memoryview) -> None:
    """Write all of ``content``, of which the system may take a part at a time."""
    file.seek(offset)
    left = content.cast("B")
    while left:
        left = left[file.write(left) :]


def _parts(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)] if size > 0 else []
