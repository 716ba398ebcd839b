"""The teacher's embeddings of fixed views, computed once and kept in files that any later run can read.

A view of an image is a function of (seed, view id, image, view), so where view ids come round again so do the teacher's
embeddings. There is one file for each view id, a row for each image. A row carries a checksum of itself: a row that was
never written, or only partly before the machine went down, is missing and not wrong, and processes that write other
rows of the same file need not wait for each other. A file in which no row is missing has a mark beside it, so that it
is looked through once and not at each start; each row is checked when it is read.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from rich.console import Console
from torch import Tensor

from ssl_transfer.data import Batch, Batches
from ssl_transfer.data.device import to_device
from ssl_transfer.files import named, take_room, write_text
from ssl_transfer.progress import Stage

_AT_ONCE = 16_384  # rows that are copied


class TeacherMemory:
    """Embeddings of ``views`` views of each of ``images`` images under ``view_ids`` numbers, in a folder of ``root``.

    ``key`` says in words all that decides an embedding; the folder carries its hash, so that another teacher, data set
    or augmentation has another folder. ``precision`` is that of the files; reading gives float32.

    Raises:
        ValueError: the disk has no room for the files.
    """

    def __init__(
        self,
        root: Path,
        key: Mapping[str, object],
        *,
        images: int,
        view_ids: int,
        views: int,
        width: int,
        precision: Literal["float16", "float32"],
    ):
        self._key = {**key, "views": views, "width": width, "kept as": precision}
        content = json.dumps(self._key, sort_keys=True, indent=2)
        self.folder = root / hashlib.sha256(content.encode()).hexdigest()[:16]
        self.precision = precision
        row = np.dtype([("checksum", "<u4"), ("embeddings", np.dtype(precision).newbyteorder("<"), (views, width))])
        self.bytes = view_ids * images * row.itemsize
        paths = [self.folder / f"{view_id}.bin" for view_id in range(view_ids)]
        self.folder.mkdir(parents=True, exist_ok=True)
        _check_room(self.folder, sum(images * row.itemsize for path in paths if not path.exists()))
        if not (self.folder / "key.json").exists():
            write_text(self.folder / "key.json", content + "\n")
        self._files = [_map(path, row, images) for path in paths]

    def has(self, view_id: int, index: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether the embeddings of these images' views are here, and whole."""
        return torch.from_numpy(_whole(self._files[view_id][index.numpy()]))

    def write(self, view_id: int, index: Int64[Tensor, " n"], embeddings: Float32[Tensor, "rows width"]) -> None:
        """Keep the embeddings of these images' views, given all first views first, then all second.

        Raises:
            ValueError: an embedding is not finite in the precision of the files.
        """
        rows = np.zeros(len(index), self._files[view_id].dtype)
        by_image = embeddings.unflatten(0, (-1, len(index))).transpose(0, 1)
        kept = by_image.to(getattr(torch, self.precision)).cpu().contiguous()
        if not torch.isfinite(kept).all():
            raise ValueError(
                f"an embedding of the teacher is not finite in {self.precision} (the largest is "
                f"{embeddings.abs().max().item():g}): choose task.teacher.memory=float32 or none"
            )
        rows["embeddings"] = kept.numpy()
        rows["checksum"] = _checksums(rows["embeddings"])
        self._files[view_id][index.numpy()] = rows

    def read(self, view_id: int, index: Int64[Tensor, " n"]) -> Float32[Tensor, "rows width"]:
        """The embeddings of these images' views, all first views first, then all second.

        Raises:
            ValueError: a row is not what was written; the next :meth:`fill` computes it again.
        """
        rows = self._files[view_id][index.numpy()]
        if not _whole(rows).all():
            self._mark(view_id).unlink(missing_ok=True)
            raise ValueError(
                f"{self.folder / f'{view_id}.bin'} is damaged: run the same command again, which computes anew what is "
                "damaged of it"
            )
        return torch.from_numpy(rows["embeddings"]).transpose(0, 1).flatten(0, 1).float()

    def take_over(self, fingerprint: Callable[[int], str]) -> None:
        """Copy what another memory in the folder has of the first of these images: the data set has grown since.

        ``fingerprint`` gives that of a number of the first images, which stood as ``data`` in the key of that memory.
        The view of an image depends on its place, so images have to be added behind the others.
        """
        fingerprint = cache(fingerprint)
        own = {**json.loads(json.dumps(self._key)), "data": ""}
        for path in sorted(self.folder.parent.glob("*/key.json")):
            try:
                key = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if path.parent == self.folder or {**key, "data": ""} != own:
                continue
            for view_id, file in enumerate(self._files):
                kept = path.with_name(f"{view_id}.bin")
                count, rest = divmod(kept.stat().st_size if kept.exists() else 0, file.dtype.itemsize)
                if self._mark(view_id).exists() or rest or not 0 < count < len(file):
                    continue
                if fingerprint(count) == key.get("data"):
                    _copy_missing(np.memmap(kept, file.dtype, "r", shape=(count,)), file)

    def mark_whole(self) -> None:
        """Say that all rows of all files are there, so that nobody has to look through them to know: to be said once
        every process that shares this disk has filled its part, or found it filled.
        """
        for view_id in range(len(self._files)):
            if not self._mark(view_id).exists():
                write_text(self._mark(view_id), "all rows are there\n")

    def _mark(self, view_id: int) -> Path:
        return self.folder / f"{view_id}.whole"

    def fill(
        self,
        batches: Batches,
        teacher: Callable[[Tensor], Tensor],
        *,
        share: tuple[int, int] = (0, 1),
        before_each: Callable[[], None] = lambda: None,
        title: str = "",
        console: Console | None = None,
    ) -> int:
        """Compute what is missing of the ``share`` (which, of how many) and return how many views the teacher saw.

        ``teacher`` is given as many views at a time as in training. ``before_each`` is called before each such part and
        may raise; what was computed stays. ``console``, if given, shows under ``title`` how far the work is.

        Raises:
            ValueError: an embedding is not finite in the precision of the files, or an image cannot be decoded.
        """
        images, which, of = batches.images, *share
        own = torch.arange(len(images)).tensor_split(of)[which]
        parts = own.split(batches.batch_size // batches.world)
        todo = [
            (view_id, index)
            for view_id in range(len(self._files))
            if not self._mark(view_id).exists()
            for index in parts
            if not bool(self.has(view_id, index).all())
        ]
        seen = 0
        to_see = sum(len(index) for _, index in todo) * len(batches.views)
        with (
            closing(images.reader(lambda place: todo[place][1], steps=len(todo))) as pixels_of,
            Stage(title, console, to_see, unit="views", passing=True) as stage,
        ):
            for place, (view_id, index) in enumerate(todo):
                before_each()
                views = batches.views_of(pixels_of(place), index, view_id)
                with torch.no_grad():
                    self.write(view_id, index, teacher(torch.cat(views)).float())
                seen += len(views) * len(index)
                stage.update(seen)
        for file in self._files:
            file.flush()
        return seen


def with_teachers(batches: Batches, memories: Sequence[TeacherMemory | None]) -> Callable[[int], Batch]:
    """A function from the step to its batch with each teacher's embeddings of it, None where there is no memory."""
    device = batches.images.pixels.device

    def batch(step: int) -> Batch:
        made = batches.batch(step)
        index = batches.index(step)
        return replace(
            made,
            remembered=tuple(
                None if memory is None else to_device(memory.read(made.view_id, index), device) for memory in memories
            ),
        )

    return batch


def _map(path: Path, row: np.dtype, images: int) -> np.memmap:
    """The file as an array of rows, made of zeros if it is not there.

    Raises:
        OSError: there is no room for it; names the file.
    """
    with named(path), path.open("ab") as file:
        file.truncate(images * row.itemsize)
        take_room(file.fileno())
    return np.memmap(path, row, mode="r+", shape=(images,))


def _copy_missing(kept: np.ndarray, into: np.ndarray) -> None:
    """Copy those of the first rows that are not whole there."""
    for start in range(0, len(kept), _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, len(kept)))
        missing = ~_whole(into[rows])
        into[rows][missing] = kept[rows][missing]


def _whole(rows: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Whether each row is what was written."""
    return _checksums(rows["embeddings"]) == rows["checksum"]


def _checksums(embeddings: np.ndarray) -> np.ndarray:
    """CRC-32 of each row; that of zeros is not zero, so a hole is no whole row."""
    rows: Iterator[bytes] = (row.tobytes() for row in embeddings)
    return np.fromiter((zlib.crc32(row) for row in rows), "<u4", len(embeddings))


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the teacher's memory needs {needed / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB are free: "
            "take fewer data.fixed_views, another train.runs, or task.teacher.memory=none"
        )
