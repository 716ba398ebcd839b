"""A network's output for any number of images: decoded ahead, in parts that are kept, so that no work is lost."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from ssl_transfer.data import Images
from ssl_transfer.data.sources.streaming import StreamedPixels
from ssl_transfer.features.extraction import exact
from ssl_transfer.files import json_hash
from ssl_transfer.models.checkpoint import read_tensors, write_tensors
from ssl_transfer.probes import extract_features

ROWS = 1024  # of a part: what a program that is killed loses at most
BATCH = 128  # images at a time


@dataclass(frozen=True)
class Part:
    """The ``values`` of the images at ``rows``, and the file of each image that cannot be decoded, with the reason."""

    values: Float32[Tensor, "m d"]
    rows: Int64[Tensor, " m"]
    broken: dict[str, str]


def embed_rows(
    network: nn.Module, images: Images, rows: slice, *, advance: Callable[[int], None] = lambda count: None
) -> Part:
    """What ``network`` gives for the images at ``rows``, on its device; those that cannot be decoded are left out.

    ``advance`` is called with the number of images after each batch.

    Raises:
        ValueError: the network cannot take such images.
    """
    batches = [range(start, min(start + BATCH, rows.stop)) for start in range(rows.start, rows.stop, BATCH)]
    values: list[Tensor] = []
    kept: list[int] = []
    broken: dict[str, str] = {}
    with exact():
        for batch, (pixels, why) in zip(batches, _decoded(images, batches), strict=True):
            whole = [row for row in batch if row not in why]
            if whole:
                chosen = pixels[[row - batch.start for row in whole]] if why else pixels
                values.append(extract_features(network, chosen).cpu())
            kept += whole
            broken |= {_name(images, row): reason for row, reason in why.items()}
            advance(len(batch))
    return Part(torch.cat(values) if values else torch.empty(0, 0), torch.tensor(kept, dtype=torch.long), broken)


def _decoded(images: Images, batches: list[range]) -> Iterator[tuple[Tensor, dict[int, str]]]:
    """The pixels of each batch, and the reasons for those that cannot be decoded; the next is decoded meanwhile."""

    def read(batch: range) -> tuple[Tensor, dict[int, str]]:
        rows = slice(batch.start, batch.stop)
        return images.pixels.read(rows) if isinstance(images.pixels, StreamedPixels) else (images.pixels[rows], {})

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(read, batches[0]) if batches else None
        for following in [*batches[1:], None]:
            assert coming is not None
            decoded = coming.result()
            coming = None if following is None else ahead.submit(read, following)
            yield decoded


def _name(images: Images, row: int) -> str:
    return f"image {row}" if images.files is None else images.files[row]


class KeptParts:
    """The parts of a whole data set in a ``folder``, under a ``key`` that says in words all that decides them.

    Every process writes the parts that it computed.
    """

    def __init__(self, folder: Path, key: Mapping[str, object], images: int):
        self.folder = folder / json_hash(key)
        self.slices = [slice(start, min(start + ROWS, images)) for start in range(0, images, ROWS)]

    def forget_others(self) -> None:
        """Remove parts under other keys: they are of another model or of other images, and of no use any more."""
        for other in self.folder.parent.iterdir() if self.folder.parent.is_dir() else ():
            if other != self.folder and re.fullmatch("[0-9a-f]{16}", other.name):
                shutil.rmtree(other)

    def missing(self) -> list[int]:
        """The numbers of the parts that are not there."""
        return [number for number in range(len(self.slices)) if not self._path(number).is_file()]

    def write(self, number: int, part: Part) -> None:
        """Keep a part."""
        tensors = {"values": part.values.contiguous(), "rows": part.rows}
        write_tensors(self._path(number), tensors, {"broken": json.dumps(part.broken)})

    def read(self, number: int) -> Part:
        """A part that was kept.

        Raises:
            ValueError: it is damaged; it is removed, so that it will be computed again.
        """
        try:
            tensors, notes = read_tensors(self._path(number))
        except ValueError:
            self._path(number).unlink(missing_ok=True)
            raise
        return Part(tensors["values"], tensors["rows"], json.loads(notes["broken"]))

    def remove(self) -> None:
        """Remove all parts: they are in the whole file now."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.parent.rmdir()
        except OSError:  # somebody else's file is in it
            pass

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"
