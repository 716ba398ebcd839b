"""What one process of several knows alone, made known to all of them after the same step."""

import time

import torch
from accelerate import Accelerator

_SECONDS = 2.0  # between two questions, about
_STEPS = 100  # at most, should steps become slow


class Agreement:
    """Whether a process was asked to stop, and whether a checkpoint is due by the clock: equal on all processes.

    Only a question that all ask after the same step is answered, and an answer that does not wait for the device costs
    it nothing. So processes ask each other every two seconds or so, after a step on which they agreed the time before;
    after each step, where steps take longer. A process that is alone asks itself after each.
    """

    def __init__(self, accelerator: Accelerator, first_step: int, checkpoint_seconds: float | None):
        self._accelerator, self._checkpoint_seconds = accelerator, checkpoint_seconds
        self._asked_to_stop = False
        self._saved = self._met = time.monotonic()
        self._met_after, self._next = first_step, first_step + 1

    def after(self, steps_done: int, asked_to_stop: bool) -> tuple[bool, bool]:
        """Whether to stop, and whether to save the state, now that ``steps_done`` are done."""
        self._asked_to_stop |= asked_to_stop
        if steps_done < self._next:
            return False, False
        now = time.monotonic()
        late = self._checkpoint_seconds is not None and now - self._saved >= self._checkpoint_seconds
        if self._accelerator.num_processes == 1:
            return self._asked_to_stop, late
        seconds_a_step = (now - self._met) / (steps_done - self._met_after)
        self._met, self._met_after = now, steps_done
        ahead = max(1.0, min(_STEPS, _SECONDS / max(seconds_a_step, 1e-9)))
        own = [float(self._asked_to_stop), *((float(late), ahead) if self._accelerator.is_main_process else (0.0, 0.0))]
        stopping, late_on_main, agreed = self._accelerator.reduce(
            torch.tensor(own, device=self._accelerator.device), reduction="sum"
        ).tolist()
        self._next = steps_done + int(agreed)
        return stopping > 0, late_on_main > 0

    def saved(self) -> None:
        """Take note that the state was saved just now."""
        self._saved = time.monotonic()
