"""How far training is, for a person watching."""

import time
from collections.abc import Callable

from rich.console import Console

from ssl_transfer.progress import Stage, duration

_SECONDS_OF_A_GUESS, _STEPS_OF_A_GUESS = 3.0, 5


class ProgressReport:
    """Shows steps done, the loss, images per second and the time left; silent on all but the main process.

    As soon as the time of training can be guessed it is said, with what ``afterwards(seconds of a step)`` says of the
    time after it.
    """

    def __init__(
        self, title: str, console: Console | None, afterwards: Callable[[float], str] = lambda seconds_of_a_step: ""
    ):
        self.title, self.console, self.afterwards = title, console, afterwards
        self._first, self._began, self._told = 0, 0.0, False
        self._stage = Stage(title, None, 0)

    def begin(self, first_step: int, total_steps: int) -> None:
        """Count from ``first_step`` steps that are done to ``total_steps``."""
        if self.console is not None and 0 < first_step < total_steps:
            where = f"{self.title}: going on after step {first_step:,} of {total_steps:,}"
            self.console.print(where, highlight=False, soft_wrap=True)
        self._first, self._began, self._told = first_step, time.monotonic(), False
        self._stage = Stage(self.title, self.console, total_steps, done=first_step, unit="steps")

    def moved(self, step: int) -> None:
        """Report that ``step`` steps are done, of which there are no figures yet; at the end those follow at once."""
        if step == self._stage.total:
            return
        self._stage.update(step)
        seconds, left = time.monotonic() - self._began, self._stage.seconds_left
        if (
            not self._told
            and left is not None
            and seconds > _SECONDS_OF_A_GUESS
            and step - self._first >= _STEPS_OF_A_GUESS
        ):
            self._told = True  # the first steps are slower than others, so not earlier
            if self.console is not None:
                words = (
                    f"{self.title}: about {duration(left)} of training{self.afterwards(seconds / (step - self._first))}"
                )
                self.console.print(words, highlight=False, soft_wrap=True)

    def update(self, step: int, epoch: float, loss: float, images_per_second: float) -> None:
        """Report that ``step`` steps are done, and what is known of the last of them."""
        self._stage.update(step, f"epoch {epoch:.1f}  loss {loss:#.4g}  {images_per_second:,.0f} images/s")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._stage.close()
