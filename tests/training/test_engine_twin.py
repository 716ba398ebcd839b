"""A run's steps are those of plain PyTorch: losses, rates, clipping, weights, their average, masks, and its speed."""

import json
import os
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn
from torch.multiprocessing import spawn

from ssl_transfer import config
from ssl_transfer.building.optimizer import build_optimizer, learning_rate
from ssl_transfer.models import AveragedModel
from ssl_transfer.recipe import _arithmetic
from ssl_transfer.training import engine
from ssl_transfer.training.engine import Interrupted, Keeping, Plan, fit
from ssl_transfer.training.progress import ProgressReport
from tests.processes import on_two_processes
from tests.reference import training as twin

BATCH_SIZE, STEPS_PER_EPOCH, EPOCHS = 6, 5, 2
STEPS = EPOCHS * STEPS_PER_EPOCH
WARMUP, BASE, FINAL, MOMENTUM, WEIGHT_DECAY, PROXY_SCALE, EMA = 3, 0.02, 0.004, 0.7, 0.1, 5.0, 0.6
OPTIMIZERS = {
    f"sgd, momentum: {MOMENTUM}": partial(torch.optim.SGD, momentum=MOMENTUM),
    "adamw": torch.optim.AdamW,
}

NARROW = ", gradients averaged in bfloat16"


class Proxies(nn.Module):
    """A small metric-learning task in float64: a model with batch norm, and a loss with weights of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        # Without a bias before the norm: its gradient is 0 but for rounding, which AdamW would blow up.
        layers = nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)
        self.model = nn.Sequential(*layers).double()
        self.loss = nn.Linear(3, 4).double()

    def forward(self, batch):
        scores = self.loss(self.model(batch))
        return {"loss": scores.logsumexp(dim=1).mean() + scores.square().mean()}


def batch(step):
    return torch.randn(BATCH_SIZE, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


@pytest.fixture
def recipe(recipes):
    """A recipe whose every number of the optimizer differs from the default."""

    def load(optimizer, decay_all):
        overrides = {
            "task.proxy_lr_scale": PROXY_SCALE,
            "optim": f"{{name: {optimizer}, lr: {BASE}, final_lr: {FINAL}}}",
            "optim.weight_decay": WEIGHT_DECAY,
            "optim.warmup_epochs": WARMUP / STEPS_PER_EPOCH,
            "optim.decay_all": decay_all or "null",
            "train.epochs": EPOCHS,
        }
        path = recipes / "birds" / "proxy-anchor-cpu.yaml"
        return config.load(path, [f"{key}={value}" for key, value in overrides.items()])

    return load


def train(task, folder, optimizer=None, *, batch=batch, accelerator=None, plan=None, keeping=None, **options):
    """What differs from the usual plan and keeping is given."""
    sizes = {"batch_size": BATCH_SIZE, "steps_per_epoch": STEPS_PER_EPOCH, "total_steps": STEPS}
    return fit(
        task,
        batch,
        optimizer or torch.optim.SGD(task.parameters(), lr=0.0),
        plan=Plan(**{"seed": 5, **sizes, "learning_rate": lambda step: BASE} | (plan or {})),
        keeping=Keeping(folder, **{"checkpoint_every": STEPS, "log_every": 4} | (keeping or {})),
        accelerator=accelerator or Accelerator(cpu=True),
        autocast=nullcontext,
        **{"progress": ProgressReport("twin", None)} | options,
    )


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 0.7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ten_steps_are_those_of_plain_pytorch(recipe, tmp_path, optimizer, clip_norm, decay_all):
    described, task, plain = recipe(optimizer, decay_all), Proxies(), Proxies()
    average = AveragedModel(task.model)

    def follow(step):
        average.update(task.model, momentum=EMA)

    train(
        task,
        tmp_path,
        build_optimizer(described, task),
        plan={"learning_rate": learning_rate(described, STEPS_PER_EPOCH), "clip_norm": clip_norm},
        keeping={"also": {"average": average}},
        after_step=[follow],
    )
    expected = twin.fit(
        plain,
        [batch(step) for step in range(STEPS)],
        OPTIMIZERS[optimizer],
        rate=partial(twin.warmup_cosine, total=STEPS, warmup=WARMUP, base=BASE, final=FINAL),
        scale_of=lambda name: PROXY_SCALE if name.startswith("loss.") else 1.0,
        decay_of=lambda weight: WEIGHT_DECAY if weight.ndim > 1 or decay_all else 0.0,
        clip_norm=clip_norm,
        ema=EMA,
    )
    if clip_norm is not None:
        assert min(expected.norms) < 0.9 * clip_norm and max(expected.norms) > 1.1 * clip_norm

    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    lines = log(tmp_path)
    close([line["loss"] for line in lines], expected.losses)
    close([line["lr"] for line in lines], expected.rates)
    close(dict(task.state_dict()), dict(expected.weights))
    close(
        dict(average.module.state_dict()),
        {name.removeprefix("model."): value for name, value in expected.average.items() if name.startswith("model.")},
    )


def test_torchs_own_optimizer_learns_at_the_rate_of_the_plan(tmp_path):
    task = Proxies()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.0)
    train(task, tmp_path, optimizer, plan={"learning_rate": lambda step: BASE / (1 + step)})
    assert [group["lr"] for group in optimizer.param_groups] == [BASE / STEPS]


class Masked(nn.Module):
    """Keeps what the generator was seeded with at every step, and the dropout mask that it drew."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.drawn: list[tuple[int, torch.Tensor]] = []

    def forward(self, batch):
        mask = nn.functional.dropout(torch.ones(64), 0.5)
        self.drawn.append((torch.initial_seed(), mask))
        return {"loss": self.weight * mask.mean()}


def draw(folder, seed):
    """Three steps; the generator is left elsewhere after each."""
    task = Masked()

    def disturb(step):
        torch.manual_seed(0)

    train(task, folder, plan={"seed": seed, "total_steps": 3}, after_step=[disturb])
    return task.drawn


def assert_drawn(drawn):
    """All differ, and each is what its (seed, step, rank) draws by the formula.

    The formula is written out a second time: another one would change the numbers of runs that people have made.
    """
    assert len(drawn) == len({tuple(mask.tolist()) for _, mask in drawn.values()}) == 6
    for key, (seed, mask) in drawn.items():
        assert seed == twin.step_seed(*key)
        torch.manual_seed(seed)
        assert torch.equal(mask, nn.functional.dropout(torch.ones(64), 0.5))


def test_a_mask_is_a_function_of_the_seed_and_the_step(tmp_path):
    drawn = {seed: draw(tmp_path / str(seed), seed) for seed in (7, 8)}
    assert_drawn({(seed, step, 0): found for seed in drawn for step, found in enumerate(drawn[seed])})


def save_drawn(rank, port, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.save(draw(folder, seed=7), folder / f"{rank}.pt")
    Accelerator(cpu=True).end_training()


@pytest.mark.slow
def test_each_process_draws_masks_of_its_own(tmp_path, free_port):
    spawn(save_drawn, (free_port, tmp_path), nprocs=2)
    drawn = {rank: torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)}
    assert_drawn({(7, step, rank): found for rank in drawn for step, found in enumerate(drawn[rank])})


class Slope(nn.Module):
    """Its gradient is what the batch says, whatever the weights are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64))

    def forward(self, batch):
        return {"loss": self.weight @ batch}


def slope(rank):
    return torch.randn(64, generator=torch.Generator().manual_seed(rank))


def check_gradients(rank, folder):
    """What is sent is rounded, and so is what comes back: with two processes there is one way to add."""
    as_runs_do = DistributedDataParallelKwargs(gradient_as_bucket_view=True, static_graph=True)
    halves = [(2 * slope(other)).bfloat16() / 2 for other in (0, 1)]
    for narrow, expected in ((False, slope(0) + slope(1)), (True, (halves[0] + halves[1]).float())):
        task = Slope()
        train(
            task,
            folder / str(narrow),
            torch.optim.SGD(task.parameters(), lr=0.0),
            batch=lambda step: slope(rank),
            accelerator=Accelerator(cpu=True, kwargs_handlers=[as_runs_do]),
            plan={"total_steps": 1, "learning_rate": lambda step: 1.0, "bf16_gradients": narrow},
        )
        assert torch.equal(-task.weight.detach(), expected)


@pytest.mark.slow
def test_gradients_are_averaged_in_bfloat16_where_that_is_asked_for(tmp_path):
    on_two_processes(check_gradients, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "processes", "said"),
    [([], 2, ""), (["train.bf16_gradients=true"], 1, ""), (["train.bf16_gradients=true"], 2, NARROW)],
)
def test_the_record_of_a_run_says_where_gradients_were_averaged_in_bfloat16(recipes, overrides, processes, said):
    recipe = config.load(recipes / "digits" / "simclr.yaml", overrides)
    assert _arithmetic(recipe, "float32", processes) == f"float32{said}"


@pytest.fixture
def slow_batch(monkeypatch):
    """Batch k takes k + 1 seconds on a clock that nothing else moves."""
    clock = [100.0]
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock[0])

    def make(step):
        clock[0] += step + 1
        return batch(step)

    return make


class Watched(ProgressReport):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__("twin", None)
        self.updates: list[tuple] = []

    def update(self, step, epoch, loss, images_per_second):
        self.updates.append((step, epoch, loss, images_per_second))


def test_speed_is_that_of_the_steps_since_the_last_flush(tmp_path, monkeypatch, slow_batch):
    """The log is flushed after 4, 6, 8 and 10 steps, the second and the last time since the state is saved.

    What a person sees and what trackers get are the lines that end a flush; trackers get figures of other steps too.
    """
    accelerator, progress, tracked = Accelerator(cpu=True), Watched(), []
    monkeypatch.setattr(accelerator, "log", lambda figures, step: tracked.append((step, figures)))
    outcome = train(
        Proxies(),
        tmp_path,
        batch=slow_batch,
        accelerator=accelerator,
        progress=progress,
        keeping={"checkpoint_every": 6},
        after_step=[lambda step: {"figure": 0.5} if step == 2 else None],
    )
    rates = {3: 4 * 6 / (1 + 2 + 3 + 4), 5: 2 * 6 / (5 + 6), 7: 2 * 6 / (7 + 8), 9: 2 * 6 / (9 + 10)}
    lines = log(tmp_path)
    found = {line["step"]: line["images_per_second"] for line in lines if "images_per_second" in line}
    assert found == {step: round(rate, 1) for step, rate in rates.items()}
    assert progress.updates == [(step + 1, (step + 1) / 5, lines[step]["loss"], rate) for step, rate in rates.items()]
    for step, figures in tracked:
        assert {"step": step} | figures == lines[step] and "step" not in figures
    assert [step for step, _ in tracked] == [2, 3, 5, 7, 9] and lines[2]["figure"] == 0.5
    assert outcome.steps == 10 and outcome.seconds == 55
    assert outcome.images_per_second == rates[7]  # the median of all but the first, which pays for warming up


def test_a_state_holds_the_seconds_of_all_parts_of_a_run(tmp_path, slow_batch):
    saved = []
    keeping = {"checkpoint_every": 6, "on_save": lambda steps, seconds: saved.append((steps, seconds))}
    with pytest.raises(Interrupted):
        train(Proxies(), tmp_path, batch=slow_batch, stop=lambda step: step == 7, keeping=keeping)
    state = torch.load(tmp_path / "state" / "state.pt", weights_only=True)
    assert (state["step"], state["seconds"]) == (7, 28.0)
    assert state["parts"].keys() == {"task", "optimizer"}  # as in the states that people have
    outcome = train(Proxies(), tmp_path, batch=slow_batch, keeping=keeping)
    assert saved == [(6, 21.0), (7, 28.0), (10, 55.0)] and outcome.seconds == 55
