"""One process at a time in a folder: the system's lock of a file, which ends with the process that holds it."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ssl_transfer.files import take_lock

_NAME = ".lock"


@contextmanager
def locked(folder: Path, while_waiting: Callable[[int], None] = lambda seconds: None) -> Iterator[None]:
    """Hold the lock of ``folder`` inside the block, waiting until no other process holds it.

    ``while_waiting(seconds)`` is called every second of the wait and may raise. On file systems without locks, and in
    folders that cannot be written, nobody waits.
    """
    try:
        file = (folder / _NAME).open("a")
    except OSError:
        file = None
    if file is None:
        yield
        return
    with file:
        for seconds in itertools.count():
            if _take(file) is not False:
                break
            while_waiting(seconds)
            time.sleep(1)
        yield


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Inside the block, whether this process alone has said that it is about to work in ``folder``.

    It need not be there yet. On file systems without locks everybody may say so.
    """
    path = folder.with_name(f".{folder.name}.claim")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError:
        yield True
        return
    with file:
        alone = _take(file) is not False
        try:
            yield alone
        finally:
            if alone:
                path.unlink(missing_ok=True)


def is_free(folder: Path) -> bool:
    """Whether no process holds the lock of ``folder``; False where that cannot be known."""
    try:
        with (folder / _NAME).open("r+") as file:
            return _take(file) is True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _take(file: IO[str]) -> bool | None:
    """Try to take the lock: True if it is ours now, False if another process holds it, None without locks."""
    try:
        take_lock(file.fileno())
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
