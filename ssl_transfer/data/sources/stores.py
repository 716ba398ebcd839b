"""Files by address: ``https://``, ``s3://``, ``hf://`` and whatever else fsspec knows, read by ranges of bytes.

Stores are away now and then: what fails is tried again, for half a minute, before it is said that a store is away.
"""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before a second try, a third ...
_FOR_GOOD = (FileNotFoundError, PermissionError, ValueError, TypeError, AttributeError, NotImplementedError)
_STATUS_FOR_GOOD = (401, 403, 404, 410)  # of HTTP: forbidden, or not there
_BLOCK = 4 * 2**20  # bytes that are asked for at a time where a file is read from front to end
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


class RemoteFile(NamedTuple):
    """A file of a store: its address, its size, and what changes with its content (an ETag, or a time)."""

    address: str
    size: int
    version: str


def find(root: str, pattern: str) -> list[RemoteFile]:
    """The files below ``root`` that a pattern names, with wildcards where the store can list, or with ``{000..123}``.

    Raises:
        ValueError: there is no library for such addresses, or the store is away.
    """
    asked = f"{root.rstrip('/')}/{pattern}"
    system, _ = _system(asked)
    if _BRACES.search(asked) or not re.search(r"[*?\[]", asked):
        addresses = expanded(asked)
    else:
        addresses = [system.unstrip_protocol(path) for path in sorted(_again(lambda: system.glob(asked), asked))]
    return [found for found in map(_described, addresses) if found is not None]


def read_range(address: str, start: int, size: int) -> bytes:
    """``size`` bytes of a file from ``start`` on.

    Raises:
        OSError: the store is away, or does not give ranges of a file.
    """
    system, path = _system(address)
    content = _again(lambda: system.cat_file(path, start=start, end=start + size), address)
    if len(content) != size:
        raise OSError(f"the store gave {len(content)} bytes where {size} were asked for: it must give ranges of files")
    return content


def reading(address: str, do: Callable[[Any], T]) -> T:
    """What ``do`` makes of a file that it reads from front to end, once more from the front where the store fails.

    Raises:
        OSError: the store is away.
    """
    system, path = _system(address)

    def once() -> T:
        with system.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as file:
            return do(file)

    return _again(once, address)


def _described(address: str) -> RemoteFile | None:
    """The file at an address, None where there is none."""
    system, path = _system(address)
    try:
        found = _again(lambda: system.info(path), address)
    except FileNotFoundError:
        return None
    if found.get("size") is None:
        raise ValueError(f"{address} has no size: its store must say how long a file is, and give ranges of it.")
    changes = ("ETag", "etag", "blob_id", "LastModified", "Last-Modified", "last_modified", "mtime", "created")
    version = next((str(found[key]) for key in changes if found.get(key) is not None), "")
    return RemoteFile(address, int(found["size"]), version)


def expanded(pattern: str) -> list[str]:
    """Every address that ``{000..123}`` stands for, as webdataset and shells write them."""
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    width = len(braces[1])
    numbers = range(int(braces[1]), int(braces[2]) + 1)
    before, after = pattern[: braces.start()], expanded(pattern[braces.end() :])
    return [f"{before}{number:0{width}}{rest}" for number in numbers for rest in after]


def _again(do: Callable[[], T], address: str) -> T:
    """What ``do`` returns, tried again where the store fails in a way that passes."""
    for pause in (*_PAUSES, None):
        try:
            return do()
        except Exception as error:  # each store has errors of its own: of sockets, of HTTP, of its library
            # fsspec says of every answer but a file that there is none; what the answer was is behind that.
            answer = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
            if isinstance(answer, _FOR_GOOD) or getattr(answer, "status", None) in _STATUS_FOR_GOOD:
                raise
            if pause is None:
                why = " ".join(str(answer).split()) or type(answer).__name__
                raise OSError(f"the store of {address} is away, after {len(_PAUSES) + 1} tries: {why}") from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def _system(address: str) -> tuple[Any, str]:
    try:
        return _known_system(address.partition("://")[0]), address
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address} cannot be read: {error}") from error


@lru_cache(maxsize=16)
def _known_system(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol)
