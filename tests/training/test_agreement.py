"""What one process knows alone, its disk or its clock, becomes a decision of all after the same step."""

import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import nn

from ssl_transfer.distributed import from_main_process, main_process_first, meet
from ssl_transfer.errors import UserError
from ssl_transfer.training import agreement
from ssl_transfer.training.agreement import Agreement
from ssl_transfer.training.engine import Interrupted, Keeping, Plan, fit
from ssl_transfer.training.progress import ProgressReport
from tests.processes import on_two_processes

STEPS = 40


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, rows):
        return {"loss": (rows @ self.weight).square().mean() / dist.get_world_size()}


def batch(step):
    time.sleep(0.01)  # so that there are seconds in which to agree
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(2 * step + dist.get_rank()))


def train(folder, *, stop=lambda step: False, **kept):
    task, saved = Line(), []
    settings = {"checkpoint_every": STEPS, "log_every": STEPS} | kept
    fit(
        task,
        batch,
        torch.optim.SGD(task.parameters(), lr=0.0, momentum=0.9),
        plan=Plan(5, 8, STEPS, STEPS, lambda step: 0.01),
        keeping=Keeping(folder, **settings, on_save=lambda steps, seconds: saved.append(steps)),
        accelerator=Accelerator(cpu=True),
        autocast=nullcontext,
        stop=stop,
        progress=ProgressReport("line", None),
    )
    return task.weight.detach(), saved


def check_machines(rank: int, root: Path) -> None:
    """Two processes that share no disk."""
    own = root / str(rank)
    whole, saved = train(own / "whole")
    assert saved == ([STEPS] if rank == 0 else [])

    # One alone is asked to stop, long before the log is written; both stop after the same step, soon.
    asked_at = 7
    with pytest.raises(Interrupted, match="stopped after step") as stopped:
        train(own / "parts", stop=lambda step: rank == 1 and step >= asked_at)
    steps = [None, None]
    dist.all_gather_object(steps, str(stopped.value))
    assert steps[0] == steps[1] and asked_at <= int(steps[0].split()[3]) < STEPS

    # The state lies on the main process's disk alone.
    state = own / "parts" / "state" / "state.pt"
    assert state.exists() == (rank == 0)
    parts, _ = train(own / "parts")
    assert torch.equal(parts, whole)

    # The clock of the main process decides, and the result is the same.
    timed, saved = train(own / "timed", checkpoint_seconds=0.05)
    assert torch.equal(timed, whole) and (len(saved) > 2 if rank == 0 else not saved)

    # A state that is damaged is told by all.
    if rank == 0:
        state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be continued from"):
        train(own / "parts")


@pytest.mark.slow
def test_two_machines_without_a_shared_disk_stop_resume_and_save_together(tmp_path, monkeypatch):
    on_two_processes(check_machines_quickly, tmp_path)


def check_machines_quickly(rank: int, root: Path) -> None:
    agreement._SECONDS = 0.03
    check_machines(rank, root)


def check_patience(rank: int) -> None:
    began = time.monotonic()
    if rank == 0:
        time.sleep(1)
    meet()
    assert time.monotonic() - began >= 1
    meet()
    assert from_main_process(lambda: f"of {dist.get_rank()}") == "of 0"

    def refuse() -> None:
        raise KeyError("there is none")

    with pytest.raises(KeyError, match="there is none"):
        from_main_process(refuse, KeyError)
    assert from_main_process(lambda: 7) == 7  # and all go on
    entered = time.time()
    with main_process_first():
        entered = time.time()
        time.sleep(0.5)
    times = [0.0, 0.0]
    dist.all_gather_object(times, entered)
    assert times[1] - times[0] >= 0.5


@pytest.mark.slow
def test_the_others_wait_for_what_the_main_process_does_alone():
    on_two_processes(check_patience)


def test_one_process_is_asked_after_each_step_and_slow_steps_are_asked_after_each(monkeypatch):
    clock = iter(range(0, 10000, 50))
    monkeypatch.setattr(agreement.time, "monotonic", lambda: next(clock))
    alone = Agreement(Mock(spec=Accelerator, num_processes=1), 0, None)
    assert [alone.after(step, step == 3) for step in (1, 2, 3, 4)] == [(False, False)] * 2 + [(True, False)] * 2

    asked = []

    def reduce(table, reduction):
        asked.append(table.tolist())
        return table

    one_of_two = Mock(spec=Accelerator, num_processes=2, is_main_process=True, device="cpu", reduce=reduce)
    slow = Agreement(one_of_two, 0, 120.0)
    found = [slow.after(step, False) for step in (1, 2, 3, 4)]
    assert asked == [[0, late, 1] for late in (0, 0, 1, 1)]  # steps of 50 seconds
    assert found == [(False, False)] * 2 + [(False, True)] * 2
    slow.saved()
    assert slow.after(5, False) == (False, False)
