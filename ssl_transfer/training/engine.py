"""The training loop. It knows a task (batch -> {"loss": ...}), an optimizer, and functions of the step; nothing else.

A task returns its process's *share* of each number: the sum over processes is the number of the global batch. DDP
averages gradients, so the loop multiplies the loss by the number of processes before it goes backward.

Nothing in the loop carries state from step to step but the weights, the optimizer and what the task registers as
buffers. Batches, the learning rate and random masks are functions of the step; so the state on disk is those tensors
and the step, and a run continues exactly, on any number of processes.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer.distributed import from_main_process, gather_rows
from ssl_transfer.errors import Interrupted, UserError, user_mistakes
from ssl_transfer.files import append_text
from ssl_transfer.losses.checks import checked_later
from ssl_transfer.models.checkpoint import read_state, restore_state, save_state
from ssl_transfer.training import metrics
from ssl_transfer.training.agreement import Agreement
from ssl_transfer.training.progress import ProgressReport


@dataclass(frozen=True)
class Outcome:
    """Where training ended."""

    steps: int
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Plan:
    """What a run does, as far as it is a function of the step: nothing else may decide its numbers.

    ``batch_size`` is over all processes. ``total_steps`` is where the run ends, ``clip_norm`` the largest norm of the
    gradient, None to leave it alone. With ``bf16_gradients`` several processes average gradients that are rounded to
    bfloat16; each still adds the average to float32 weights.
    """

    seed: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    learning_rate: Callable[[int], float]
    clip_norm: float | None = None
    bf16_gradients: bool = False


@dataclass(frozen=True)
class Keeping:
    """What of a run is kept in ``folder``, and after how many steps.

    The state holds the task, the optimizer and the modules of ``also``, and is written every ``checkpoint_every``
    steps, and where ``checkpoint_seconds`` have passed since it was written last; ``metrics.jsonl`` grows every
    ``log_every`` steps. ``on_save(steps, seconds)`` is called on the main process after the state was written.
    """

    folder: Path
    checkpoint_every: int
    log_every: int
    checkpoint_seconds: float | None = None
    also: Mapping[str, nn.Module] = field(default_factory=dict)
    on_save: Callable[[int, float], None] = lambda steps, seconds: None


def fit(
    task: nn.Module,
    batch: Callable[[int], Any],
    optimizer: torch.optim.Optimizer,
    *,
    plan: Plan,
    keeping: Keeping,
    accelerator: Accelerator,
    autocast: Callable[[], AbstractContextManager[Any]],
    after_step: Sequence[Callable[[int], Mapping[str, float] | None]] = (),
    stop: Callable[[int], bool] = lambda step: False,
    progress: ProgressReport,
) -> Outcome:
    """Train ``task`` up to the plan's last step, from the state in its folder if there is one.

    The figures that ``after_step`` returns, equal on every process, are logged beside the step's loss. ``stop(step)``
    is asked between steps; where it says yes, the state is saved and training ends. Several processes
    agree within seconds on the step after which they do that. The state that training goes on from is the main
    process's: the others need not find it on their disks.

    Raises:
        UserError: the loss of some step or what is about to be saved is not finite, or the state on disk cannot be
            used.
        Interrupted: ``stop`` said so, and the state is saved.
    """
    state_file = keeping.folder / "state" / "state.pt"
    parts = {"task": task, "optimizer": optimizer, **keeping.also}
    first_step, seconds_before = _resume(state_file, parts)
    wrapped, stepper = accelerator.prepare(task, optimizer)
    if plan.bf16_gradients and isinstance(wrapped, DistributedDataParallel):
        wrapped.register_comm_hook(None, bf16_compress_hook)  # not by the accelerator, which a teacher's run shares
    wrapped.train()
    log = MetricsLog(accelerator, keeping.folder / metrics.NAME, first_step, plan.steps_per_epoch, plan.batch_size)
    progress.begin(first_step, plan.total_steps)
    agreement = Agreement(accelerator, first_step, keeping.checkpoint_seconds)
    world = accelerator.num_processes

    def save(steps_done: int) -> None:
        _refuse_broken(parts, steps_done)
        if accelerator.is_main_process:
            seconds = seconds_before + log.seconds
            save_state(state_file, steps_done, seconds, parts)
            keeping.on_save(steps_done, seconds)
        agreement.saved()

    try:
        for step in range(first_step, plan.total_steps):
            _seed_step(plan.seed, step, accelerator.process_index)
            rate = plan.learning_rate(step)
            for group in stepper.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            with autocast(), _named_step(step), checked_later() as sides:
                shares = wrapped(batch(step))
            accelerator.backward(shares["loss"] * world)
            if plan.clip_norm is not None:
                accelerator.clip_grad_norm_(wrapped.parameters(), plan.clip_norm)
            stepper.step()
            stepper.zero_grad(set_to_none=True)
            figures: dict[str, float] = {}
            for update in after_step:
                with _named_step(step):
                    figures |= update(step) or {}

            log.add(step, rate, shares, figures, sides)
            done = step + 1
            at_end = done == plan.total_steps
            progress.moved(done)
            stopping, late = agreement.after(done, stop(done))
            due = done % keeping.checkpoint_every == 0 or late or stopping or at_end
            if done % keeping.log_every == 0 or due:
                log.flush()  # raises where rows or a loss were not finite: only good states are saved
                progress.update(done, done / plan.steps_per_epoch, log.loss, log.images_per_second)
                if due:
                    save(done)
                if stopping and not at_end:
                    raise Interrupted(
                        f"stopped after step {done} of {plan.total_steps}; run the same command again to continue"
                    )
    finally:
        progress.close()
    accelerator.free_memory()  # it holds on to what it prepared, and perhaps a student is trained next
    return Outcome(max(plan.total_steps, first_step), seconds_before + log.seconds, log.median_images_per_second)


@dataclass(frozen=True)
class _Step:
    step: int
    learning_rate: float
    shares: Mapping[str, Tensor]
    figures: Mapping[str, float]
    sides: Mapping[str, Tensor]


class MetricsLog:
    """Numbers stay on the device until a flush; then one transfer, one reduction, and lines in ``metrics.jsonl``."""

    def __init__(self, accelerator: Accelerator, path: Path, first_step: int, steps_per_epoch: int, batch_size: int):
        self.accelerator, self.path = accelerator, path
        self.steps_per_epoch, self.batch_size = steps_per_epoch, batch_size
        self.loss, self.images_per_second, self.seconds = float("nan"), 0.0, 0.0
        self._waiting: list[_Step] = []
        self._flushed = time.perf_counter()
        self._rates: list[float] = []
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            metrics.keep_steps_before(path, first_step)

    def add(
        self,
        step: int,
        learning_rate: float,
        shares: Mapping[str, Tensor],
        figures: Mapping[str, float],
        sides: Mapping[str, Tensor],
    ) -> None:
        """Remember one step's numbers without waiting for the device; ``figures`` are the same on every process.

        ``sides`` are numbers that are not finite where rows that a loss compared were not.
        """
        detached = {name: share.detach() for name, share in shares.items()}
        self._waiting.append(_Step(step, learning_rate, detached, figures, sides))

    def flush(self) -> None:
        """Write what waits.

        Raises:
            UserError: rows or a loss were not finite; names the first such step, and the side.
        """
        names, sides = list(self._waiting[0].shares), list(self._waiting[0].sides)
        table = torch.stack([torch.stack([step.shares[name].double() for name in names]) for step in self._waiting])
        checks = [step.sides[side] for step in self._waiting for side in sides]
        table = torch.cat([table.flatten(), *(check[None] for check in checks)])
        by_process = gather_rows(table[None]).tolist()
        values = [sum(column) for column in zip(*by_process, strict=True)]
        rows = [values[start : start + len(names)] for start in range(0, len(values) - len(checks), len(names))]
        totals = iter(values[len(values) - len(checks) :])
        now = time.perf_counter()
        elapsed, self._flushed = now - self._flushed, now
        self.seconds += elapsed
        self.images_per_second = len(rows) * self.batch_size / elapsed
        self._rates.append(self.images_per_second)
        lines = []
        for waited, row in zip(self._waiting, rows, strict=True):
            numbers = dict(zip(names, row, strict=True))
            broken = [side for side in sides if not math.isfinite(next(totals))]
            if broken or not all(map(math.isfinite, row)):
                raise UserError(_not_finite(waited.step, broken, numbers))
            place = {"step": waited.step, "epoch": waited.step / self.steps_per_epoch, "lr": waited.learning_rate}
            lines.append({**place, **numbers, **waited.figures})
        lines[-1]["images_per_second"] = round(self.images_per_second, 1)
        self.loss = rows[-1][names.index("loss")]
        if self.accelerator.is_main_process:
            append_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))
        for line in (
            line for line, waited in zip(lines, self._waiting, strict=True) if waited.figures or line is lines[-1]
        ):
            self.accelerator.log({key: value for key, value in line.items() if key != "step"}, step=line["step"])
        self._waiting.clear()

    @property
    def median_images_per_second(self) -> float:
        """The median rate over the flushes but the first, which pays for warming up."""
        rates = sorted(self._rates[1:] or self._rates or [0.0])
        return rates[len(rates) // 2]


def _not_finite(step: int, sides: Sequence[str], numbers: Mapping[str, float]) -> str:
    mend = "lower optim.lr, set train.clip_norm, or use train.precision=full, and run again"
    if not sides:
        return f"the loss of step {step} is not finite ({numbers}); the last good state is kept: {mend}"
    if "student" not in sides:
        mend = "look at its weights and at the images of this step, or use train.precision=full, and run again"
    return f"step {step}: rows of the {' and the '.join(sides)} are not finite; the last good state is kept: {mend}"


def _refuse_broken(parts: Mapping[str, Any], steps_done: int) -> None:
    """Refuse to save a state with numbers that are not finite, which an update can make of a loss that was."""
    flags: dict[torch.device, list[Tensor]] = {}
    for value in _tensors({name: part.state_dict() for name, part in parts.items()}):
        flags.setdefault(value.device, []).append(torch.isfinite(value).all())
    if not all(bool(torch.stack(of_device).all()) for of_device in flags.values()):
        raise UserError(
            f"the update of step {steps_done - 1} or one shortly before it made weights that are not finite; the last "
            "good state is kept. Lower optim.lr or set train.clip_norm: that is another run in its own folder, which "
            "continues from the good state if you copy state/state.pt into its folder before it starts"
        )


def _tensors(state: Any) -> Iterator[Tensor]:
    """The floating-point tensors in a state dict, however deep."""
    if isinstance(state, Tensor):
        if state.is_floating_point():
            yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors(value)


def _resume(state_file: Path, parts: Mapping[str, Any]) -> tuple[int, float]:
    """Bring ``parts`` to the state on the main process's disk; the step to continue at and the seconds spent so far."""
    with user_mistakes():
        state = from_main_process(lambda: read_state(state_file) if state_file.exists() else None, ValueError)
        return (0, 0.0) if state is None else restore_state(state, parts, state_file)


@contextmanager
def _named_step(step: int) -> Iterator[None]:
    """A loss that refuses its input does not know the step; the person should."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"step {step}: {error} The last good state is kept.") from error


def _seed_step(seed: int, step: int, rank: int) -> None:
    """Random masks (dropout, drop path) become a function of the recipe, the step and the rank."""
    torch.manual_seed((seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**63)
