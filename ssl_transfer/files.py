"""Writing files so that a reader, or a crash, never meets half of one."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary neighbour of ``path``, then put it in its place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
