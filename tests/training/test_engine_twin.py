"""A run's steps are those of plain PyTorch: losses, rates, clipping, weights, their average, masks and speed."""

import json
import os
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.multiprocessing import spawn

from ssl_transfer import config
from ssl_transfer.building.optimizer import build_optimizer, learning_rate
from ssl_transfer.models import AveragedModel
from ssl_transfer.training import engine
from ssl_transfer.training.engine import Keeping, Plan, fit
from ssl_transfer.training.progress import ProgressReport
from tests.reference import training as twin

BATCH_SIZE, STEPS_PER_EPOCH, EPOCHS = 6, 5, 2
STEPS = EPOCHS * STEPS_PER_EPOCH
WARMUP, BASE, FINAL, MOMENTUM, WEIGHT_DECAY, PROXY_SCALE, EMA = 3, 0.02, 0.004, 0.7, 0.1, 5.0, 0.6
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, momentum=MOMENTUM),
    "adamw": torch.optim.AdamW,
}


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

    def load(optimizer):
        overrides = {
            "task.proxy_lr_scale": PROXY_SCALE,
            "optim": f"{{name: {optimizer}, lr: {BASE}, final_lr: {FINAL}, momentum: {MOMENTUM}}}",
            "optim.weight_decay": WEIGHT_DECAY,
            "optim.warmup_epochs": WARMUP / STEPS_PER_EPOCH,
            "train.epochs": EPOCHS,
        }
        path = recipes / "birds" / "proxy-anchor-cpu.yaml"
        return config.load(path, [f"{key}={value}" for key, value in overrides.items()])

    return load


def train(task, folder, *, batch=batch, accelerator=None, optimizer=None, steps=STEPS, **settings):
    after_step, also = settings.pop("after_step", ()), settings.pop("also", {})
    plan = {"seed": 5, "learning_rate": lambda step: BASE} | settings
    return fit(
        task,
        batch,
        optimizer or torch.optim.SGD(task.parameters(), lr=0.0),
        plan=Plan(batch_size=BATCH_SIZE, steps_per_epoch=STEPS_PER_EPOCH, total_steps=steps, **plan),
        keeping=Keeping(folder, checkpoint_every=STEPS, log_every=4, also=also),
        accelerator=accelerator or Accelerator(cpu=True),
        autocast=nullcontext,
        after_step=after_step,
        progress=ProgressReport("twin", None),
    )


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("clip_norm", [None, 0.7])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ten_steps_are_those_of_plain_pytorch(recipe, tmp_path, optimizer, clip_norm):
    described, task, plain = recipe(optimizer), Proxies(), Proxies()
    average = AveragedModel(task.model)

    def follow(step):
        average.update(task.model, momentum=EMA)

    train(
        task,
        tmp_path,
        optimizer=build_optimizer(described, task),
        learning_rate=learning_rate(described, STEPS_PER_EPOCH),
        clip_norm=clip_norm,
        after_step=[follow],
        also={"average": average},
    )
    expected = twin.fit(
        plain,
        [batch(step) for step in range(STEPS)],
        OPTIMIZERS[optimizer],
        rate=partial(twin.warmup_cosine, total=STEPS, warmup=WARMUP, base=BASE, final=FINAL),
        scale_of=lambda name: PROXY_SCALE if name.startswith("loss.") else 1.0,
        weight_decay=WEIGHT_DECAY,
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


class Masked(nn.Module):
    """Keeps the dropout mask of every step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.masks: list[torch.Tensor] = []

    def forward(self, batch):
        mask = nn.functional.dropout(torch.ones(64), 0.5)
        self.masks.append(mask)
        return {"loss": self.weight * mask.mean()}


def save_masks(rank, port, folder):
    """Three steps as one of two processes; the generator is left elsewhere after each."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    task, accelerator = Masked(), Accelerator(cpu=True)
    assert (accelerator.process_index, accelerator.num_processes) == (rank, 2)

    def disturb(step):
        torch.manual_seed(0)

    train(task, folder, accelerator=accelerator, steps=3, seed=7, after_step=[disturb])
    torch.save(task.masks, folder / f"{rank}.pt")
    accelerator.end_training()


@pytest.mark.slow
def test_a_mask_is_a_function_of_the_seed_the_step_and_the_rank(tmp_path, free_port):
    """The formula is written out a second time: another one would change the numbers of runs that people have made."""

    def mask(seed, step, rank):
        generator = torch.Generator().manual_seed(twin.step_seed(seed, step, rank))
        return 2 * torch.empty(64).bernoulli_(0.5, generator=generator)

    spawn(save_masks, (free_port, tmp_path), nprocs=2)
    masks = {
        (7, step, rank): found for rank in range(2) for step, found in enumerate(torch.load(tmp_path / f"{rank}.pt"))
    }
    alone = Masked()
    train(alone, tmp_path / "alone", steps=2, seed=8)
    masks |= {(8, step, 0): found for step, found in enumerate(alone.masks)}
    assert len(masks) == 8 and len({tuple(found.tolist()) for found in masks.values()}) == 8
    for key, found in masks.items():
        assert torch.equal(found, mask(*key)), key


def test_images_per_second_are_those_of_the_steps_since_the_last_flush(tmp_path, monkeypatch):
    """Step k takes k + 1 seconds, and the log is flushed after 4, 8 and all 10 steps."""
    clock = [100.0]
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock[0])

    def slow_batch(step):
        clock[0] += step + 1
        return batch(step)

    outcome = train(Proxies(), tmp_path, batch=slow_batch)
    seconds = {3: 1 + 2 + 3 + 4, 7: 5 + 6 + 7 + 8, 9: 9 + 10}
    rates = {3: 4 * BATCH_SIZE / seconds[3], 7: 4 * BATCH_SIZE / seconds[7], 9: 2 * BATCH_SIZE / seconds[9]}
    found = {line["step"]: line["images_per_second"] for line in log(tmp_path) if "images_per_second" in line}
    assert found == {step: round(rate, 1) for step, rate in rates.items()}
    assert outcome.seconds == sum(seconds.values())
    assert outcome.images_per_second == max(rates[7], rates[9])  # the upper median of all but the first, the warm-up
