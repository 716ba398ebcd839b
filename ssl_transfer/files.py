"""Writing files so that a reader, or a crash, never meets half of one."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary neighbor of ``path``, then put it in its place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not told apart by the number of the process: containers that share a disk each count their own.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
