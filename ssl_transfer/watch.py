"""Other machines that are gone without a word, as when a cable is cut: noticed within a minute, whatever goes on.

The system tells of a process that ends, but of a machine that vanishes it tells nothing, and a process that waits for
one waits until its collective gives up, or for days where it waits for as long as it takes (:func:`distributed.meet`).
So every process counts up a number of its own in the store by which the processes found each other, and the main one
looks whether all of these numbers still grow.
"""

import atexit
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import torch.distributed as dist

from ssl_transfer.distributed import meet, rank, world_size

_TICK = 3.0  # seconds between two looks
_LEFT = -1  # the number of a process that has ended as it should
_SILENT = 12  # looks after which whoever was silent is gone: counted, since all may have been suspended together


def watch_others() -> None:
    """Begin to watch over the other processes, if there are any, until the program ends.

    Where one is gone without a word, this process says so and ends with exit code 2: whatever it waits for would not
    come. A process that was killed on a machine that is still there is noticed by the system, and not here.
    """
    if world_size() == 1 or any(isinstance(thread, _Part) for thread in threading.enumerate()):
        return
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store().clone()  # a connection of its own: on the first one others may be waiting
    store.set(_host(rank()), socket.gethostname())
    store.add(_beat(rank()), 1)
    meet()  # so that all have a number
    watch = _Watch(store, rank(), range(1, world_size()) if rank() == 0 else [0], _end)
    for do in (watch.beat, watch.look):
        _Part(watch, do).start()
    atexit.register(stop_watching, done=False)


def stop_watching(*, done: bool = True) -> None:
    """End the watch, and unless this process fails tell the others that it is ``done`` and not gone.

    A thread inside the store when Python ends would take the whole process down with a signal.
    """
    parts = [thread for thread in threading.enumerate() if isinstance(thread, _Part)]
    for part in parts:
        part.watch.over.set()
    for part in parts:
        part.join(timeout=5)
    for part in parts[:1] if done else ():
        with suppress(RuntimeError, OSError):  # the store is gone already
            part.watch.leave()


class _Part(threading.Thread):
    """One of the two threads of a watch."""

    def __init__(self, watch: "_Watch", do: Callable[[], None]):
        super().__init__(target=do, name=f"watch over other machines: {do.__name__}", daemon=True)
        self.watch = watch


class _Watch:
    """Two threads: one speaks to the store and may be stuck in that for good, the other notices."""

    def __init__(self, store: dist.Store, own: int, watched: Sequence[int], end: Callable[[str], object]):
        self._store, self._own, self._watched, self._end = store, own, watched, end
        self._rounds, self.over = 0, threading.Event()

    def beat(self) -> None:
        """Count up, and look whether the others do; ends where the store is gone, as at the end of a run."""
        numbers = dict.fromkeys(self._watched, 0)
        silent = dict.fromkeys(self._watched, 0)
        try:
            while not self.over.is_set():
                self._store.add(_beat(self._own), 1)
                if self._store.check(["gone"]):
                    self._stop(self._store.get("gone").decode())
                found = [int(number) for number in self._store.multi_get([_beat(other) for other in self._watched])]
                for other, number in zip(self._watched, found, strict=True):
                    silent[other] = 0 if number != numbers[other] or number == _LEFT else silent[other] + 1
                    numbers[other] = number
                gone = [other for other in self._watched if silent[other] >= _SILENT]
                if gone:
                    hosts = sorted({self._store.get(_host(other)).decode() for other in gone})
                    sentence = (
                        f"{len(gone)} of the processes of this run, on {', '.join(hosts)}, have not been heard of for "
                        f"{_SILENT * _TICK:.0f} seconds, so all end; the same command goes on from the last checkpoint"
                    )
                    self._store.set("gone", sentence)
                    self._stop(sentence)
                self._rounds += 1
                self.over.wait(_TICK)
        except (dist.DistError, RuntimeError, OSError):  # who kept the store has ended: the system tells all others
            self.over.set()

    def look(self) -> None:
        """End the program where the other thread has not come round for long."""
        before, silent = -1, 0
        while not self.over.is_set():
            silent = 0 if self._rounds != before else silent + 1
            before = self._rounds
            if silent >= _SILENT:
                self._stop(
                    f"the machine of the main process has not answered for {_SILENT * _TICK:.0f} seconds, so this "
                    "process ends; the same command goes on from the last checkpoint"
                )
            self.over.wait(_TICK)

    def leave(self) -> None:
        """Tell the others that this process is done."""
        self._store.set(_beat(self._own), str(_LEFT))

    def _stop(self, sentence: str) -> None:
        self.over.set()
        self._end(sentence)


def _beat(number: int) -> str:
    return f"beat of {number}"


def _host(number: int) -> str:
    return f"host of {number}"


def _end(sentence: str) -> NoReturn:
    """End at once: the main thread is inside a collective, which nothing interrupts."""
    print(f"ssl-transfer (process {rank()}): {sentence}", file=sys.stderr, flush=True)
    os._exit(2)
