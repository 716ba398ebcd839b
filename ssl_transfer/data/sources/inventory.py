"""A record of what a reader took of the files that it found, and of what it left out and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_NAMED = 5  # of what is left out for one reason
_REASONS = 12  # in a sentence

HIDDEN = "hidden, or of the operating system"
BROKEN = "that cannot be decoded"


@dataclass(frozen=True)
class LeftOut:
    """What was left out for one reason: how much, and the first of its names."""

    reason: str
    count: int
    first: tuple[str, ...]

    def __str__(self) -> str:
        names = ", ".join(self.first) + (", ..." if self.count > len(self.first) else "")
        return f"{self.reason}: {self.count} ({names})"


@dataclass(frozen=True)
class Inventory:
    """How many images a reader took, and what it left out, by reason."""

    taken: int
    left_out: tuple[LeftOut, ...] = ()

    def __str__(self) -> str:
        what = "; ".join(map(str, self.left_out[:_REASONS])) or "nothing"
        more = sum(part.count for part in self.left_out[_REASONS:])
        return f"images taken: {self.taken}; left out: {what}" + (f"; for other reasons: {more}" if more else "")

    @property
    def remarkable(self) -> bool:
        """Whether more was left out than hidden files, which are no data."""
        return any(part.reason != HIDDEN for part in self.left_out)

    def summary(self) -> dict[str, Any]:
        """The same for JSON: ``{"taken": 90, "left_out": [{"reason": ..., "count": 3, "first": [...]}, ...]}``."""
        parts = [{"reason": part.reason, "count": part.count, "first": list(part.first)} for part in self.left_out]
        return {"taken": self.taken, "left_out": parts}

    def without(self, reason: str, names: Iterable[str]) -> "Inventory":
        """The same, where these images are left out too."""
        tally = Tally()
        for name in names:
            tally.leave_out(reason, name)
        more = tally.inventory(0).left_out
        return Inventory(self.taken - sum(part.count for part in more), (*self.left_out, *more))


class Tally:
    """What is left out, counted by reason while files are listed."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def leave_out(self, reason: str, name: str) -> None:
        """Count one more."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < _NAMED:
            first.append(printable(name))

    def content(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {"counts": self._counts, "first": self._first}

    def add(self, content: dict[str, Any]) -> None:
        """What another tally has, behind what this one has."""
        for reason, count in content["counts"].items():
            self._counts[reason] = self._counts.get(reason, 0) + count
            first = self._first.setdefault(reason, [])
            first.extend(content["first"][reason][: _NAMED - len(first)])

    def inventory(self, taken: int) -> Inventory:
        """The record, what is most in number first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return Inventory(taken, tuple(LeftOut(why, count, tuple(self._first[why])) for why, count in ordered))


def printable(name: str) -> str:
    """A file's name as it can be printed and stored, whatever bytes it is made of."""
    return name.encode(errors="backslashreplace").decode()
