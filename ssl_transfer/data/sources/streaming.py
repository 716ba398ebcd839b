"""Pixels that stay on disk: decoded by worker processes shortly before they are needed, in the order they are needed.

No result depends on what was asked for before. Which images a step needs is a function of the step; the workers are
given the rows of the coming steps, and what they decode depends on the row alone.
"""

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_transfer.data.sources.broken import describe
from ssl_transfer.data.sources.encoded import EncodedImages

_ROWS_AT_ONCE = 32  # decoded by one worker before the next takes over: small, so that the first step starts soon
_STEPS_AHEAD = 2

IndexOf = Callable[[int], Int64[Tensor, " n"]]


@dataclass(frozen=True)
class StreamedPixels:
    """Stands for the pixels of :class:`Images` where those do not fit into memory: it has their shape, device and rows.

    An image is brought to a square of ``canvas`` pixels, and the middle ``size`` x ``size`` of that is kept.
    """

    encoded: EncodedImages
    canvas: int  # the side to which an image is brought
    size: int  # the side of its middle that is kept
    workers: int
    device: torch.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def shape(self) -> torch.Size:
        """(images, channels, height, width)."""
        return torch.Size((len(self), 3, self.size, self.size))

    @property
    def fingerprint(self) -> str:
        """That of the encoded images, and the sizes to which they are brought."""
        return f"{self.encoded.fingerprint} {self.canvas} {self.size}"

    def to(self, device: torch.device | str) -> "StreamedPixels":
        """The same pixels, brought to another device once they are decoded."""
        return replace(self, device=torch.device(device))

    def __getitem__(self, rows: slice | Int[Tensor, " m"]) -> UInt8[Tensor, "m 3 size size"]:
        """The pixels of these rows, decoded by threads of this process.

        Raises:
            ValueError: an image cannot be decoded; names its file.
        """
        pixels, broken = self.read(rows)
        _refuse(self.encoded, broken)
        return pixels

    def read(self, rows: slice | Int[Tensor, " m"]) -> tuple[UInt8[Tensor, "m 3 size size"], dict[int, str]]:
        """The same, and by its row the reason for each image that cannot be decoded, whose pixels are zero."""
        places = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows]
        pixels, broken = self.encoded.decode_in_threads(places.tolist(), self.canvas)
        return _middle(pixels, self.size).to(self.device), broken

    def middle(self, size: int) -> "StreamedPixels":
        """The same images, and of each its middle ``size`` x ``size`` pixels."""
        return replace(self, size=size)

    def select(self, rows: Int[Tensor, " m"]) -> "StreamedPixels":
        """The same for these rows alone; nothing is decoded."""
        return replace(self, encoded=self.encoded.select(rows.cpu().long()))

    def parts(self, rows: slice, size: int) -> Iterator[UInt8[Tensor, "m 3 size size"]]:
        """The pixels of these rows in their order, ``size`` images at a time, decoded ahead by the workers.

        Raises:
            ValueError: an image cannot be decoded; names its file.
        """
        places = torch.arange(len(self))[rows]
        if not len(places):  # split would give one part, empty
            return
        wanted = places.split(size)
        reader = PixelReader(self, lambda step: wanted[step], steps=len(wanted))
        try:
            for step in range(len(wanted)):
                yield reader(step)
        finally:
            reader.close()


class PixelReader:
    """Gives the pixels of any step's images, and has the workers decode those of the two steps after it meanwhile.

    ``index_of(step)`` are the rows of a step's images, and ``steps`` their number if it is known. Any step may be asked
    for at any time; one that does not follow the last makes the workers start again there.
    """

    def __init__(self, pixels: StreamedPixels, index_of: IndexOf, *, steps: int | None = None):
        self.pixels, self.index_of, self.steps = pixels, index_of, steps
        self._coming: Iterator[tuple[Tensor, dict[int, str]]] | None = None
        self._next = -1

    def __call__(self, step: int) -> UInt8[Tensor, "n 3 size size"]:
        """The pixels of this step's images, on the device.

        Raises:
            ValueError: an image cannot be decoded, though it could be when it was checked; names its file.
        """
        rows = len(self.index_of(step))
        if step != self._next or self._coming is None:
            self._coming = self._start(step, rows)
        parts = []
        for _ in range(-(-rows // _ROWS_AT_ONCE)):
            part, broken = next(self._coming)
            _refuse(self.pixels.encoded, broken)
            parts.append(part.to(self.pixels.device, non_blocking=True))
        self._next = step + 1
        return torch.cat(parts)

    def close(self) -> None:
        """End the workers."""
        self._coming = None

    def _start(self, first: int, rows: int) -> Iterator[tuple[Tensor, dict[int, str]]]:
        self.close()
        workers = self.pixels.workers
        parts_a_step = -(-rows // _ROWS_AT_ONCE)
        loader = DataLoader(
            _Decoder(self.pixels.encoded, self.pixels.canvas, self.pixels.size),
            batch_sampler=_Coming(self.index_of, first, self.steps),
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=max(2, -(-_STEPS_AHEAD * parts_a_step // workers)) if workers else None,
            pin_memory=self.pixels.device.type == "cuda",
            multiprocessing_context=worker_context() if workers else None,
            worker_init_fn=_end_with_main_process,
        )
        return iter(loader)


class _Coming:
    """The rows of the steps from ``first`` on, a few at a time."""

    def __init__(self, index_of: IndexOf, first: int, steps: int | None):
        self.index_of, self.first, self.steps = index_of, first, steps

    def __iter__(self) -> Iterator[list[int]]:
        steps = itertools.count(self.first) if self.steps is None else range(self.first, self.steps)
        for step in steps:
            for rows in self.index_of(step).split(_ROWS_AT_ONCE):
                yield rows.tolist()


class _Decoder(Dataset):
    def __init__(self, encoded: EncodedImages, canvas: int, size: int):
        self.encoded, self.canvas, self.size = encoded, canvas, size

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, dict[int, str]]:
        pixels, broken = self.encoded.decode(rows, self.canvas)
        return _middle(pixels, self.size), broken


def _middle(pixels: Tensor, size: int) -> Tensor:
    start = round((pixels.shape[-1] - size) / 2)
    return pixels[..., start : start + size, start : start + size].contiguous()


def _as_it_is(part: tuple[Tensor, dict[int, str]]) -> tuple[Tensor, dict[int, str]]:
    return part


def worker_context() -> multiprocessing.context.BaseContext:
    """Workers forked from a small server, not from this process with its threads and its hold on the device."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # so that torch is loaded once and not by each worker
    return context


def _end_with_main_process(worker: int) -> None:
    """Let a worker end when the main process does, also by kill -9.

    The worker's parent, by which torch would notice, is the server that forked it; and the server ends after its last
    worker.
    """
    main = multiprocessing.parent_process()
    assert main is not None

    def watch() -> None:
        main.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _refuse(encoded: EncodedImages, broken: dict[int, str]) -> None:
    if broken:
        listed = describe(encoded, broken)
        raise ValueError(f"{len(broken)} images cannot be decoded: {listed}. Start again to have all files checked.")
