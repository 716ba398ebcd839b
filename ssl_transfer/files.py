"""Writing files so that neither a reader, nor a crash, nor a power failure leaves half of one."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LEFTOVER = ".*.tmp"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file, then put it in the place of ``path`` in one step.

    The content is on the disk before it takes its place. The file gets the permissions that the umask leaves to new
    files, whatever ``write`` made of them. What a killed program left of earlier writes to the folder is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with _workplace(path) as workplace:
        temporary = workplace / path.name
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        _to_disk(temporary)
        os.replace(temporary, path)
    _to_disk(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, in UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed programs left of their writes to ``folder``; a write that is going on keeps its own."""
    for leftover in folder.glob(_LEFTOVER):
        if not leftover.is_dir():
            continue
        try:
            with _locked(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:  # somebody writes there, has just finished, or the folder is not ours
            continue


def is_leftover(path: Path) -> bool:
    """Whether ``path`` is where a file was being written."""
    return path.match(_LEFTOVER)


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, locked so that others can tell it from what a killed program left."""
    # Not named after the process: containers that share a disk count their processes each from one.
    workplace = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    workplace.mkdir()
    try:
        with _locked(workplace, required=False):
            yield workplace
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, required: bool = True) -> Iterator[None]:
    """Hold the system's lock of a folder, which ends with the process.

    Raises:
        OSError: another process holds it, or the file system has no locks and one is ``required``.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if required:
                raise
        yield
    finally:
        os.close(descriptor)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot; the write itself was not refused
        pass
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The process's mask, which the system only tells whoever sets it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
