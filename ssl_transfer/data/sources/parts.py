"""Data sets in several files that are numbered: whether one of them is missing."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


def refuse_missing_parts(files: Sequence[Path]) -> None:
    """Refuse files whose numbers leave one out: ``train-000000.tar``, ``-000002.tar``, or one of ``-00000-of-00002``.

    Files that are not numbered from 0 or 1 on are let through.

    Raises:
        FileNotFoundError: a number is missing.
    """
    found: dict[tuple[str, int | None], set[int]] = defaultdict(set)  # by what comes before, and the number announced
    for path in files:
        announced = re.match(r"(.*?)([0-9]+)-of-([0-9]+)", path.name)
        counted = re.fullmatch(r"(.*?)([0-9]+)[^0-9]*", path.name)
        if announced:
            found[announced[1], int(announced[3])].add(int(announced[2]))
        elif counted:
            found[counted[1], None].add(int(counted[2]))
    for (before, count), numbers in found.items():
        first = min(numbers) if count is None else int(max(numbers) == count)
        missing = set(range(first, max(numbers) + 1 if count is None else first + count)) - numbers
        if missing and first <= 1:
            raise FileNotFoundError(
                f"{files[0].parent} lacks {len(missing)} of its numbered files, the first is number {min(missing)} of "
                f"{before}*: get it, or name the files that are meant."
            )
