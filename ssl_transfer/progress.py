"""Where long work stands, for a person watching: a live line on a terminal, now and then a line in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BEFORE_FIRST_LINE = 5.0
_SECONDS_BETWEEN_LINES = 30.0
_SHARE_BETWEEN_LINES = 0.01  # of the time that has passed: a log of days need not have a line every half minute


class Stage:
    """A piece of work of ``total`` steps, images or whatever ``unit`` says, of which ``done`` were done before.

    It shows how much is done, what else is worth showing, and the time left; of work whose length is not known, a
    ``total`` of None, the time that has passed. Without a console it is silent. A line that is ``passing`` leaves the
    terminal with the work.
    """

    def __init__(
        self,
        title: str,
        console: Console | None,
        total: int | None,
        *,
        done: int = 0,
        unit: str = "",
        passing: bool = False,
    ):
        self.title, self.console, self.total, self.done, self.unit = title, console, total, done, unit
        self.figures = ""
        self._first = done
        self._started = time.monotonic()
        self._next_line = self._started + _SECONDS_BEFORE_FIRST_LINE
        self._bar: Progress | None = None
        if console is not None and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
            clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
            self._bar = Progress(*columns, clock, console=console, transient=passing)
            self._bar.add_task(title, total=total, completed=done, figures=self._standing)
            self._bar.start()

    def __enter__(self) -> "Stage":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest takes at the speed so far, None before anything was done."""
        gained = self.done - self._first
        if self.total is None or gained <= 0:
            return None
        return (time.monotonic() - self._started) / gained * (self.total - self.done)

    def advance(self, count: int = 1) -> None:
        """Report that ``count`` more are done."""
        self.update(self.done + count)

    def update(self, done: int, figures: str | None = None) -> None:
        """Report how many are done; ``figures`` are shown from now on, and in a log at the end."""
        self.done = done
        self.figures = self.figures if figures is None else figures
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, figures=self._standing)
        elif self.console is not None:
            now = time.monotonic()
            if now >= self._next_line or (done == self.total and figures is not None):
                left = self.seconds_left
                ahead = "" if left is None or done == self.total else f"  {duration(left)} left"
                self.console.print(f"{self.title}  {self._standing}{ahead}", highlight=False, soft_wrap=True)
                passed = now - self._started
                self._next_line = now + max(_SECONDS_BETWEEN_LINES, _SHARE_BETWEEN_LINES * passed)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def _standing(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        counted = "" if self.total is None else f"{self.done:,}/{self.total:,}{unit}"
        return "  ".join(filter(None, [counted, self.figures]))


class Rounds:
    """Work of several rounds of the same stages, such as the models that are scored: what is done, and what is left.

    The time left is known once a round is over: each stage takes as long as it took the last time.
    """

    def __init__(self, title: str, console: Console | None, rounds: int):
        self.title, self.console, self.rounds = title, console, rounds
        self._round, self._name = 0, ""
        self._took: dict[str, float] = {}
        self._to_come: set[str] = set()  # stages of this round that are still ahead

    def begin(self, name: str) -> None:
        """Begin a round."""
        self._round, self._name = self._round + 1, name
        self._to_come = set(self._took)

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        """A stage of this round, of ``total`` units if that is known; in every round a stage has its own name."""
        title = f"{self.title} {self._round}/{self.rounds}, {self._name}: {name}"
        started = time.monotonic()
        with Stage(title, self.console, total, unit=unit, passing=True) as stage:
            left = self.seconds_left
            if left is not None and self.console is not None:
                stage.update(0, f"about {duration(left)} left of all")
            yield stage
        self._took[name] = time.monotonic() - started
        self._to_come.discard(name)

    def end(self) -> None:
        """End a round; says in a log how long it took."""
        if self.console is not None and not self.console.is_terminal:
            took = ", ".join(f"{name} {duration(seconds)}" for name, seconds in self._took.items())
            self.console.print(
                f"{self.title} {self._round}/{self.rounds}, {self._name}: {took}", highlight=False, soft_wrap=True
            )

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest takes, None in the first round."""
        if self._round <= 1:
            return None
        ahead = sum(self._took[name] for name in self._to_come)
        return ahead + (self.rounds - self._round) * sum(self._took.values())


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as a person says it."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
