"""``metrics.jsonl``: a line for every step of a run. Loads no torch."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from ssl_transfer.files import write_text

log = logging.getLogger(__name__)

NAME = "metrics.jsonl"
Row = dict[str, Any]


def read_metrics(path: Path) -> tuple[dict[int, Row], int]:
    """What was logged, by step, and how many lines are damaged; nothing where there is no file.

    A last line without an end is not counted: a killed program was about to write it.
    """
    rows: dict[int, Row] = {}
    damaged = 0
    *lines, _ = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    for line in lines:
        row = _parsed(line)
        if row is None:
            damaged += 1
        else:
            rows.setdefault(row["step"], row)
    return rows, damaged


def keep_steps_before(path: Path, step: int) -> None:
    """Drop the lines of steps that are about to be done again, so that each step is in the log once.

    Steps that are missing, such as those of damaged lines, are counted in a warning: training needs none of them.
    """
    rows, _ = read_metrics(path)
    kept = [row for done, row in rows.items() if done < step]
    if len(kept) < step:
        log.warning("%s has lost %s of its first %s lines; training goes on without them", path, step - len(kept), step)
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def _parsed(line: bytes) -> Row | None:
    """What a line says, None where it is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # also bytes that are no text
        return None
    whole = isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("epoch"), int | float)
    return row if whole and math.isfinite(row["epoch"]) else None
