"""The exceptions that mean: the person who started the program can mend this; and what turns others into them."""

import errno
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# The last are oneDNN's words for it.
_NO_MEMORY = re.compile(
    r"out of memory|allocate memory|not enough memory|bad_alloc|could not create a (primitive|memory)", re.IGNORECASE
)
_BYTES_ASKED_FOR = re.compile(r"tried to allocate (\d+) bytes")
_PEER = re.compile(
    r"connection (closed|reset) by|connection reset|remote process exited|broken pipe|failed to recv", re.IGNORECASE
)
_WORKER = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")


class UserError(Exception):
    """A mistake in a recipe, a path or a command, in one sentence; the command line prints it and exits with 2."""

    exit_code = 2


class Interrupted(UserError):
    """A person or the system asked the program to stop; what it did is saved."""

    exit_code = 130  # the shell's for an interrupt


def one_line(error: BaseException, *, longest: int | None = None) -> str:
    """What an error says, in one line; of a text with more than ``longest`` characters its first words."""
    text = " ".join(str(error).split())
    return text if longest is None else textwrap.shorten(text, longest, placeholder=" ...")


@contextmanager
def user_mistakes() -> Iterator[None]:
    """Turn what the library raises for a user's mistake into a :class:`UserError` with the same sentence.

    Raises:
        UserError: ``ValueError``, ``FileNotFoundError`` or ``PermissionError`` was raised inside the block.
    """
    try:
        yield
    except (ValueError, FileNotFoundError, PermissionError) as error:
        raise UserError(_refused_by_system(error) or one_line(error)) from error


@contextmanager
def machine_limits() -> Iterator[None]:
    """Turn what the machine refuses into a :class:`UserError`: memory, room on a disk, a file that is named.

    Raises:
        UserError: the memory or a disk is full, a file cannot be used, or another process of the run was killed.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        sentence = _refused_by_system(error) or _lack_of_memory(error) or _lack_of_others(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def _refused_by_system(error: BaseException) -> str | None:
    """What the system says of a file, None where ``error`` is something else."""
    if not isinstance(error, OSError) or error.errno is None or error.errno == errno.ENOMEM:
        return None
    if error.errno in _DISK_FULL:
        what = "nothing more can be written" if error.filename is None else f"{error.filename} cannot be written"
        return f"{what} ({error.strerror}): make room, or choose another folder, and run the same command again"
    return None if error.filename is None else f"{error.filename} cannot be used ({error.strerror})"


def _lack_of_memory(error: BaseException) -> str | None:
    """What to do about an ``error`` that is a lack of memory, None where it is something else."""
    text = one_line(error)
    if not isinstance(error, MemoryError) and not _NO_MEMORY.search(text):
        return None
    why = str(error).splitlines()[0] if str(error) else "Python has none left"
    asked = _BYTES_ASKED_FOR.search(text)
    if asked is not None:
        why = f"{int(asked[1]) / 2**20:,.1f} MiB more were asked for"
    return f"the memory does not suffice ({why}): lower data.batch_size or data.image_size, or choose a smaller model"


def _lack_of_others(error: BaseException) -> str | None:
    """Which process this one cannot go on without, None where ``error`` is something else."""
    text = one_line(error)
    if _WORKER.search(text):
        return f"a process that decodes images was ended, perhaps for lack of memory: lower data.workers ({text})"
    if isinstance(error, RuntimeError) and _PEER.search(text):
        return (
            f"another process of this run has ended, so this one ends too; the same command goes on from there ({text})"
        )
    return None
