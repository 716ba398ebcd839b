"""Where a run stands, for a person watching: a live line on a terminal, now and then a line in a log."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 30.0


class ProgressReport:
    """Shows steps done, the loss, images per second and the time left; silent on all but the main process."""

    def __init__(self, title: str, console: Console | None):
        self.title, self.console = title, console
        self._bar: Progress | None = None
        self.begin(0, 0)

    def begin(self, first_step: int, total_steps: int) -> None:
        """Count from ``first_step`` steps that are done to ``total_steps``."""
        self.total_steps, self._first_step = total_steps, first_step
        self._started = self._printed = time.monotonic()
        if total_steps and self.console is not None and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self._bar.add_task(self.title, total=total_steps, completed=first_step, figures="")
            self._bar.start()

    def update(self, step: int, epoch: float, loss: float, images_per_second: float) -> None:
        """Report that ``step`` steps are done."""
        place = f"step {step}/{self.total_steps}  epoch {epoch:.1f}"
        figures = f"{place}  loss {loss:.4f}  {images_per_second:,.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, figures=figures)
        elif self.console is not None:
            now = time.monotonic()
            if now - self._printed >= _SECONDS_BETWEEN_LINES or step == self.total_steps:
                left = (now - self._started) / max(step - self._first_step, 1) * (self.total_steps - step)
                self.console.print(f"{self.title}  {figures}  {duration(left)} left", highlight=False, soft_wrap=True)
                self._printed = now

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as a person says it."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
