"""Where training stands, for a person watching."""

from rich.console import Console

from ssl_transfer.progress import Stage


class ProgressReport:
    """Shows steps done, the loss, images per second and the time left; silent on all but the main process."""

    def __init__(self, title: str, console: Console | None):
        self.title, self.console = title, console
        self._stage = Stage(title, None, 0)

    def begin(self, first_step: int, total_steps: int) -> None:
        """Count from ``first_step`` steps that are done to ``total_steps``."""
        self._stage = Stage(self.title, self.console, total_steps, done=first_step, unit="steps")

    def moved(self, step: int) -> None:
        """Report that ``step`` steps are done, of which there are no figures yet."""
        self._stage.update(step)

    def update(self, step: int, epoch: float, loss: float, images_per_second: float) -> None:
        """Report that ``step`` steps are done, and what is known of the last of them."""
        self._stage.update(step, f"epoch {epoch:.1f}  loss {loss:#.4g}  {images_per_second:,.0f} images/s")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._stage.close()
