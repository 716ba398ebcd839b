"""The loop: resumed exactly, stopped cleanly, and never past a loss that is not finite."""

import gc
import json
import weakref
from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from ssl_transfer.errors import UserError
from ssl_transfer.losses.checks import check_pair
from ssl_transfer.training import engine
from ssl_transfer.training.engine import Interrupted, Keeping, Plan, fit
from ssl_transfer.training.optim import create_optimizer
from ssl_transfer.training.progress import ProgressReport

STEPS, STEPS_PER_EPOCH = 12, 4


class Toy(nn.Module):
    """A network with everything that carries state or chance: batch norm, dropout, momentum in the optimizer."""

    def __init__(self, bad_step: int | None = None):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.bad_step = bad_step

    def forward(self, batch):
        step, images = batch
        loss = self.net(images).square().mean()
        return {"loss": loss * float("nan") if step == self.bad_step else loss, "zero": loss.detach() * 0}


def batch(step):
    return step, torch.randn(6, 5, generator=torch.Generator().manual_seed(step))


def train(folder, *, bad_step=None, total_steps=STEPS, **options):
    return train_task(Toy(bad_step), Accelerator(cpu=True), folder, total_steps=total_steps, **options)


def train_task(task, accelerator, folder, *, total_steps=STEPS, **options):
    optimizer = create_optimizer(task, name="adamw", lr=1.0, weight_decay=0.1)
    seed, clip_norm = options.pop("seed", 5), options.pop("clip_norm", None)
    kept = {key: options.pop(key) for key in ("checkpoint_every", "log_every", "also", "on_save") if key in options}
    outcome = fit(
        task,
        batch,
        optimizer,
        plan=Plan(seed, 6, STEPS_PER_EPOCH, total_steps, lambda step: 1e-2 / (1 + step), clip_norm),
        keeping=Keeping(folder, **{"checkpoint_every": STEPS_PER_EPOCH, "log_every": 3} | kept),
        accelerator=accelerator,
        autocast=nullcontext,
        progress=ProgressReport("toy", None),
        **options,
    )
    return task.state_dict(), outcome


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_speed(lines):
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


@pytest.mark.parametrize("stop_after", range(1, STEPS))
def test_a_run_stopped_after_any_step_ends_with_the_same_bits(tmp_path, stop_after):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped after step {stop_after} of {STEPS}"):
        train(tmp_path / "parts", stop=lambda step: step == stop_after)
    parts, outcome = train(tmp_path / "parts")
    assert outcome.steps == STEPS
    for name, weight in whole.items():
        assert torch.equal(weight, parts[name]), name
    assert without_speed(log(tmp_path / "parts")) == without_speed(log(tmp_path / "whole"))


def test_what_was_trained_is_let_go_by_the_accelerator(tmp_path):
    accelerator = Accelerator(cpu=True)
    for name in ("teacher", "student"):
        task = Toy()
        gone = weakref.ref(task)
        train_task(task, accelerator, tmp_path / name)
        del task
        gc.collect()
        assert gone() is None


def test_a_run_that_died_continues_from_its_last_checkpoint(tmp_path):
    whole, _ = train(tmp_path / "whole")

    def dies(step):
        if step == 7:
            raise RuntimeError("power cut")
        return False

    with pytest.raises(RuntimeError, match="power cut"):
        train(tmp_path / "parts", stop=dies)
    parts, _ = train(tmp_path / "parts")
    assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())
    assert [line["step"] for line in log(tmp_path / "parts")] == list(range(STEPS))


def test_random_masks_are_functions_of_the_seed_and_the_step(tmp_path):
    first, _ = train(tmp_path / "first")
    torch.randn(1000)  # whatever happened to the generator before does not matter
    again, _ = train(tmp_path / "again")
    other, _ = train(tmp_path / "other", seed=6)
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not torch.equal(first["net.0.weight"], other["net.0.weight"])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path):
    with pytest.raises(UserError, match="the loss of step 9 is not finite"):
        train(tmp_path, bad_step=9)
    state = torch.load(tmp_path / "state" / "state.pt", weights_only=True)
    assert state["step"] == 8
    assert all(value.isfinite().all() for value in state["parts"]["task"].values())
    mended, _ = train(tmp_path)
    whole, _ = train(tmp_path / "whole")
    assert all(torch.equal(weight, mended[name]) for name, weight in whole.items())


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_rows_that_are_not_finite_are_named_by_step_and_side_and_nothing_is_saved(tmp_path, side):
    """They are looked at when the log is written, five steps later; a loss may even hide them."""

    class Compared(Toy):
        def forward(self, batch):
            step, images = batch
            rows = self.net(images)
            broken = {"student": rows, "teacher": rows.detach()}
            broken[side] = broken[side] * (float("nan") if step == 9 else 1)
            check_pair(broken["student"], broken["teacher"])
            return {"loss": rows.square().mean()}

    with pytest.raises(UserError, match=f"step 9: rows of the {side} are not finite; the last good state is kept"):
        train_task(Compared(), Accelerator(cpu=True), tmp_path, log_every=100, checkpoint_every=8)
    assert torch.load(tmp_path / "state" / "state.pt", weights_only=True)["step"] == 8
    assert log(tmp_path)[-1]["step"] == 7


def test_the_log_has_each_step_once_with_its_learning_rate(tmp_path):
    train(tmp_path)
    lines = log(tmp_path)
    assert [line["step"] for line in lines] == list(range(STEPS))
    assert [line["lr"] for line in lines] == [1e-2 / (1 + step) for step in range(STEPS)]
    assert [line["epoch"] for line in lines] == [step / STEPS_PER_EPOCH for step in range(STEPS)]
    assert all(line["loss"] > 0 and line["zero"] == 0 for line in lines)


def test_a_cut_or_foreign_state_is_refused_and_left_in_place(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, stop=lambda step: step == 5)
    state = tmp_path / "state" / "state.pt"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be continued from .* remove it"):
        train(tmp_path)
    torch.save({"step": 3, "seconds": 0.0, "parts": {"task": {}, "optimizer": {}}}, state)
    with pytest.raises(UserError, match="cannot be continued from"):
        train(tmp_path)
    assert state.exists()


def test_gradient_clipping_bounds_what_a_step_can_do(tmp_path):
    free, _ = train(tmp_path / "free", total_steps=1)
    clipped, _ = train(tmp_path / "clipped", total_steps=1, clip_norm=1e-12)
    start = Toy().state_dict()

    def moved(state):
        # AdamW divides by the gradient's size, so only a gradient below its eps shows that it was clipped
        return (state["net.0.weight"] - start["net.0.weight"]).abs().max()

    assert moved(clipped) < 0.1 * moved(free)


@pytest.mark.parametrize("bad_rate_at", [5, STEPS - 1])
def test_an_update_that_breaks_the_weights_is_not_saved_and_named(tmp_path, bad_rate_at):
    task = Toy()
    plan = Plan(5, 6, STEPS_PER_EPOCH, STEPS, lambda step: float("inf") if step == bad_rate_at else 1e-2)
    keeping = Keeping(tmp_path, checkpoint_every=2, log_every=1)
    with pytest.raises(UserError, match=f"the update of step {bad_rate_at} .*not finite; the last good state is kept"):
        fit(
            task,
            batch,
            create_optimizer(task, name="sgd", lr=1.0, weight_decay=0.0),
            plan=plan,
            keeping=keeping,
            accelerator=Accelerator(cpu=True),
            autocast=nullcontext,
            progress=ProgressReport("toy", None),
        )
    state = torch.load(tmp_path / "state" / "state.pt", weights_only=True)
    assert state["step"] == bad_rate_at - 1
    assert all(value.isfinite().all() for value in state["parts"]["task"].values())


def test_numbers_that_are_not_finite_are_found_anywhere_in_a_state(tmp_path):
    class Deep(nn.Module):
        def state_dict(self, *arguments, **settings):
            return {"list": [torch.ones(2), {"tuple": (torch.tensor([1.0, torch.nan]),)}], "count": torch.tensor(3)}

    with pytest.raises(UserError, match="not finite"):
        train(tmp_path, also={"deep": Deep()})


@pytest.mark.parametrize(
    ("sides", "rows", "mend"),
    [
        (["student"], "rows of the student are", "lower optim.lr"),
        (["teacher"], "rows of the teacher are", "look at its weights"),
        (["student", "teacher"], "rows of the student and the teacher are", "lower optim.lr"),
        ([], "the loss of step 3 is", "lower optim.lr"),
    ],
)
def test_what_is_advised_is_for_the_side_that_is_not_finite(sides, rows, mend):
    said = engine._not_finite(3, sides, {"loss": float("nan")})
    assert f"{rows} not finite" in said and f": {mend}" in said
