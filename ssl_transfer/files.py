"""Writing files so that neither a reader, nor a crash, nor a power failure leaves half of one."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where nobody can tell whether a folder is in use
    fcntl = None  # type: ignore[assignment]

CHECKSUM = "sha256"  # of its content, in the header of a file of tensors and as a key of a JSON file
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file, then put it in the place of ``path`` in one step.

    The content is on the disk before it takes its place. The file gets the permissions that the umask leaves to new
    files, whatever ``write`` made of them. What a killed program left of earlier writes to the folder is removed.

    Raises:
        OSError: the system refused, also where ``write`` raised an error of its own about that; names ``path``.
    """
    with _workplace(path) as workplace:
        temporary = workplace / path.name
        write(temporary)
        _settle(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of ``path`` in one step at the end of the block.

    ``path`` may be there and empty. Files are treated like those of :func:`write_atomically`; after an error nothing is
    left.

    Raises:
        OSError: the system refused; names ``path``.
    """
    with _workplace(path) as workplace:
        temporary = workplace / path.name
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _settle(file)
        os.replace(temporary, path)
        _to_disk(path.parent)


def append_text(path: Path, text: str) -> None:
    """Add ``text`` to the end of a file, in UTF-8.

    Raises:
        OSError: the system refused; names ``path``.
    """
    with named(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let the system's errors inside the block name ``path``, which they do not for a write that a full disk refuses.

    Raises:
        OSError: the one that was raised, with the name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence of our own
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_address(path: object) -> bool:
    """Whether this is an address in a store, such as ``s3://bucket/folder``, and no path on a disk."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(path)) is not None


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, in UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file holds no JSON object.
        OSError: the system refused.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def with_checksum(content: Mapping[str, Any], *, unchecked: Collection[str] = ()) -> dict[str, Any]:
    """A JSON object with a hash of all its keys but ``unchecked``: times, in which equal runs differ."""
    return {**content, CHECKSUM: _hash_of_checked(content, unchecked)}


def verified(content: Mapping[str, Any], *, unchecked: Collection[str] = ()) -> dict[str, Any]:
    """What was given to :func:`with_checksum`; an object without a hash, of an earlier version, is taken as it is.

    Raises:
        ValueError: it is not what was given.
    """
    own = {key: value for key, value in content.items() if key != CHECKSUM}
    if content.get(CHECKSUM) not in (None, _hash_of_checked(own, unchecked)):
        raise ValueError(f"it is not what was written; if you changed it yourself, remove its key {CHECKSUM}")
    return own


def json_hash(content: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of what JSON can hold, whatever the order of keys."""
    read_back = json.loads(json.dumps(content))  # in which keys are text, and numbers sort in another order
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()[:16]


def _hash_of_checked(content: Mapping[str, Any], unchecked: Collection[str]) -> str:
    return json_hash({key: value for key, value in content.items() if key not in unchecked})


def remove_leftovers(folder: Path) -> None:
    """Remove what killed programs left of their writes to ``folder``; a write that is going on keeps its own."""
    for leftover in folder.iterdir() if folder.is_dir() else ():
        if not is_leftover(leftover) or not leftover.is_dir():
            continue
        try:
            with _locked(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:  # somebody writes there, has just finished, or the folder is not ours
            continue


def is_leftover(path: Path) -> bool:
    """Whether ``path`` is where a file was being written."""
    return _LEFTOVER.fullmatch(path.name) is not None


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder beside ``path``, locked so that others can tell it from what a killed program left."""
    with named(path), ExitStack() as locks:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        while True:
            # Not named after the process: containers that share a disk count their processes each from one.
            workplace = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            workplace.mkdir()
            with suppress(FileNotFoundError, BlockingIOError):  # somebody takes it, not locked yet, for a leftover
                locks.enter_context(_locked(workplace, required=False))
                if workplace.exists():
                    break
        try:
            yield workplace
        except OSError:
            raise
        except Exception as error:
            _blame_the_system(error, workplace)
            raise
        finally:
            shutil.rmtree(workplace, ignore_errors=True)


def _blame_the_system(error: Exception, workplace: Path) -> None:
    """Raise the system's own error where that of a library tells of it, or might.

    Libraries in Rust write its number; torch writes of a position in its file, so the disk is asked once more.
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number is not None:
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    if isinstance(error, RuntimeError):
        (workplace / "probe").write_bytes(bytes(2**20))


@contextmanager
def _locked(folder: Path, *, required: bool = True) -> Iterator[None]:
    """Hold the system's lock of a folder, which ends with the process.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder is not there, or the file system has no locks and one is ``required``.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            take_lock(descriptor)
        except BlockingIOError:
            raise
        except OSError:
            if required:
                raise
        yield
    finally:
        os.close(descriptor)


def take_lock(descriptor: int) -> None:
    """Take the system's lock of an open file or folder, without waiting; it ends with the process.

    Raises:
        BlockingIOError: another process holds it.
        OSError: there are no locks here.
    """
    if fcntl is None:
        raise OSError("this system has no locks")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def take_room(descriptor: int) -> None:
    """Fill the holes of a file now: a disk that is full when a mapped page is written ends the process by a signal.

    Raises:
        OSError: there is no room.
    """
    found = os.fstat(descriptor)
    if found.st_blocks * 512 >= found.st_size or not hasattr(os, "posix_fallocate"):  # which macOS has not
        return
    try:
        os.posix_fallocate(descriptor, 0, found.st_size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this file system has no such thing
            raise


def _settle(file: Path) -> None:
    """Give a new file the permissions of any other, and wait until it is on the disk."""
    file.chmod(0o666 & ~_umask())
    _to_disk(file)


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
