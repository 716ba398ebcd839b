"""SimCLR, MoCo and MoCo v3: their formulas, any number of processes, and a run that is continued."""

import json
import os
import subprocess
import sys
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer import config, recipe
from ssl_transfer.building.model import model_spec, untrained
from ssl_transfer.building.task import build_task
from ssl_transfer.data import Batch, load_images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.errors import UserError
from ssl_transfer.models import EmbeddingModel, MomentumEncoder
from ssl_transfer.models.checkpoint import (
    HeadSpec,
    ModelSpec,
    build_model,
    load_model,
    read_state,
    restore_state,
    save_state,
)
from ssl_transfer.tasks.moco import MoCo, MoCoV3
from ssl_transfer.tasks.pretrain import SimCLR
from ssl_transfer.tasks.queue import pushed
from ssl_transfer.training.engine import Interrupted
from ssl_transfer.training.optim import create_optimizer
from tests.processes import assert_same_on, sum_over_processes
from tests.reference import pretrain as reference

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "recipes" / "digits" / "moco.yaml"
REAL = os.environ.get("SSL_TRANSFER_DATA")
IMAGES, QUEUE, STEPS = 6, 20, 4  # a queue that two steps' keys do not fill and four steps' overflow


def momentum(step: int) -> float:
    return [0.9, 0.7, 0.8, 0.6][step]


def network(*, batch_norm: bool = True) -> EmbeddingModel:
    torch.manual_seed(0)
    head = HeadSpec("projection", 5, 7, batch_norm=batch_norm)
    return build_model(ModelSpec("cifar_resnet8", "default", 1, 8, (0.3,), (0.4,), head=head)).double().train()


def task_of(kind: str, **options) -> nn.Module:
    model = network(batch_norm=kind != "moco")
    torch.manual_seed(1)
    if kind == "simclr":
        return SimCLR(model, temperature=0.5, **options)
    if kind == "moco_v3":
        task = MoCoV3(model, hidden_dim=9, temperature=0.3, momentum=momentum, last_norm="none", **options)
    else:
        symmetric = kind == "symmetric moco"
        task = MoCo(model, queue_size=QUEUE, temperature=0.2, momentum=momentum, symmetric=symmetric, **options)
    return task.double().train()


KINDS = ["simclr", "moco", "symmetric moco", "moco_v3"]


def share_of_batch(step: int, rank: int = 0, world: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = torch.rand(2, IMAGES, 1, 8, 8, generator=generator, dtype=torch.float64)
    own = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    # Views are float32 in a run; float64 here tells a wrong gradient from rounding.
    return Batch(tuple(views[:, own]), torch.arange(IMAGES)[own], labels=None, step=step)


def train(task: nn.Module, optimizer, first: int, last: int, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Losses of the steps, the last one's gradients, and all that the task keeps."""
    found = {}
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    runner = DistributedDataParallel(task, broadcast_buffers=False) if world > 1 else task
    for step in range(first, last):
        optimizer.zero_grad()
        share = runner(share_of_batch(step, rank, world))["loss"]
        (share * world).backward()
        optimizer.step()
        found[f"loss {step}"] = sum_over_processes(share.detach())
    found |= {f"gradient {name}": weight.grad for name, weight in task.named_parameters() if weight.requires_grad}
    return found | {f"kept {name}": value for name, value in task.state_dict().items()}


def sgd(task: nn.Module) -> torch.optim.Optimizer:
    return create_optimizer(task, name="sgd", lr=0.1, weight_decay=1e-3)


def start(kind: str, rank: int = 0, world: int = 1, **options) -> dict[str, torch.Tensor]:
    task = task_of(kind, **options)
    if world > 1:
        synchronize_batch_norm(task)
    return train(task, sgd(task), 0, STEPS, rank, world)


def start_in_parts(kind: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    return start(kind, rank, world, micro_batch_size=4 if kind == "simclr" else 2)  # three parts


@pytest.mark.parametrize("kind", ["moco", "moco_v3"])
def test_queries_and_keys_are_made_one_part_at_a_time(kind):
    task, at_a_time = task_of(kind, micro_batch_size=2), []
    for network in (task.model, task.key_encoder):
        network.register_forward_pre_hook(lambda module, given: at_a_time.append(len(given[0])))
    task(share_of_batch(0))
    assert max(at_a_time) <= 2 and sum(at_a_time) == (2 if kind == "moco" else 4) * IMAGES


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_of_several_steps_are_the_formulas(kind):
    task = task_of(kind)
    model = deepcopy(task.model)
    if kind == "simclr":
        twin, parameters = None, list(model.parameters())
    elif kind == "moco_v3":
        predictor = deepcopy(task.predictor)
        twin = reference.MoCoV3(model, momentum, predictor, 0.3)
        parameters = [*model.parameters(), *predictor.parameters()]
    else:
        queue = task.nt_xent.memory_bank.rows.clone()
        twin = reference.MoCo(model, momentum, queue, 0.2, symmetric=kind == "symmetric moco")
        parameters = list(model.parameters())
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    ours, theirs = (torch.optim.SGD(weights, lr=0.3, momentum=0.9) for weights in (trained, parameters))
    for step in range(STEPS):
        batch = share_of_batch(step)
        ours.zero_grad()
        theirs.zero_grad()
        loss = task(batch)["loss"]
        expected = reference.simclr(model, batch.views, 0.5) if twin is None else twin.loss(batch.views, step)
        torch.testing.assert_close(loss, expected)
        loss.backward()
        expected.backward()
        for mine, other in zip(trained, parameters, strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-10)
        ours.step()
        theirs.step()
    if "moco" in kind and kind != "moco_v3":
        torch.testing.assert_close(task.nt_xent.memory_bank.rows, torch.stack(twin.queue))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_losses_gradients_queue_and_trailing_copy_do_not_depend_on_the_number_of_processes(world):
    expected = {kind: start(kind) for kind in KINDS}
    kept = [name for name in expected["symmetric moco"] if name.startswith("kept")]
    assert "kept nt_xent.memory_bank.rows" in kept and any("key_encoder" in name for name in kept)
    assert_same_on(world, start, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_batch_norm_in_parts_sees_the_same_images_on_two_processes():
    kinds = ("simclr", "moco", "moco_v3")
    assert_same_on(2, start_in_parts, {kind: start_in_parts(kind) for kind in kinds}, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_stopped_and_restored_goes_on_with_the_same_bits(kind, tmp_path):
    whole = start(kind)
    task = task_of(kind)
    optimizer = sgd(task)
    train(task, optimizer, 0, 2)
    save_state(tmp_path / "state.pt", 2, 0.0, {"task": task, "optimizer": optimizer})

    restored = task_of(kind)
    with torch.no_grad():
        for value in restored.state_dict().values():
            value.zero_()
    optimizer = sgd(restored)
    path = tmp_path / "state.pt"
    assert restore_state(read_state(path), {"task": restored, "optimizer": optimizer}, path)[0] == 2
    found = train(restored, optimizer, 2, STEPS)
    assert all(torch.equal(value, whole[name]) for name, value in found.items())


@pytest.mark.parametrize("kind", ["moco", "moco_v3"])
def test_the_trailing_copy_is_moved_by_momentum_alone_and_only_in_its_step(kind):
    task = task_of(kind)
    before = [weight.clone() for weight in task.key_encoder.parameters()]
    with torch.no_grad():
        for weight in task.model.parameters():
            weight.add_(1.0)
    assert not any(weight.requires_grad for weight in task.key_encoder.parameters())
    loss = task(share_of_batch(2))["loss"]
    moved = [weight.clone() for weight in task.key_encoder.parameters()]
    for old, new in zip(before, moved, strict=True):
        torch.testing.assert_close(new, old + (1 - momentum(2)))
    optimizer = sgd(task)
    loss.backward()
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(moved, task.key_encoder.parameters(), strict=True))


def test_the_trailing_copy_normalizes_by_its_batch_in_training_and_by_running_statistics_in_evaluation():
    encoder = MomentumEncoder(nn.BatchNorm1d(3))
    rows = torch.randn(8, 3) * 5 + 2
    torch.testing.assert_close(encoder(rows).mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert encoder.module.num_batches_tracked == 1
    assert not torch.allclose(encoder.eval()(rows).mean(0), torch.zeros(3), atol=0.1)


@pytest.mark.parametrize("kind", ["moco", "symmetric moco", "moco_v3"])
def test_parts_give_the_gradient_of_the_whole_batch(kind):
    whole, parts = task_of(kind), task_of(kind, micro_batch_size=4)
    for task in (whole, parts):
        for module in (*task.model.modules(), *task.key_encoder.modules()):  # without batch statistics
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        task(share_of_batch(0))["loss"].backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-6, atol=1e-12, msg=name)


def built(*overrides: str) -> tuple[nn.Module, EmbeddingModel]:
    given = config.load(DIGITS, overrides)
    images = load_images("digits", Path(), split="train", download=False)
    model = untrained(given, model_spec(given, images))
    return build_task(given, model, [], images, steps_per_epoch=5), model


def test_momentum_is_a_function_of_the_step_planned_for_all_epochs():
    rising, _ = built("task.momentum=0.9", "task.final_momentum=1.0", "train.epochs=8", "train.steps=3")
    assert [rising.momentum(step) for step in (0, 20, 40)] == pytest.approx([0.9, 0.95, 1.0])  # half a cosine, 40 steps
    constant, _ = built("task.momentum=0.9", "task.final_momentum=null")
    assert {constant.momentum(step) for step in (0, 7, 499)} == {0.9}
    third, _ = built("task.kind=moco_v3", "task.momentum=0.99", "train.epochs=6")
    assert [third.momentum(step) for step in (0, 30)] == pytest.approx([0.99, 1.0])


@pytest.mark.parametrize(
    ("overrides", "linear", "norms"),
    [
        (["task.head=linear"], 1, 0),  # version 1
        (["task.head=mlp"], 2, 0),  # version 2
        (["task.kind=moco_v3", "task.hidden_dim=16"], 2, 2),
        (["task.kind=moco_v3", "task.hidden_dim=16", "task.projection_layers=3"], 3, 3),
    ],
)
def test_each_version_has_its_own_head(overrides, linear, norms):
    _, model = built(*overrides)
    layers = list(model.head.modules())
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == linear
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in layers) == norms
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 64)


def test_the_queue_starts_as_directions_of_the_recipes_seed():
    (first, _), (again, _), (other, _) = built(), built(), built("seed=1")
    rows = first.nt_xent.memory_bank.rows
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    assert torch.equal(rows, again.nt_xent.memory_bank.rows)
    assert not torch.equal(rows, other.nt_xent.memory_bank.rows)


@pytest.mark.parametrize("kind", ["simclr", "moco", "moco_v3"])
def test_two_views_and_a_projection_are_asked_for(kind):
    for override, words in {
        "data.views=3": f"{kind} contrasts exactly two views, data.views is 3",
        "model.embedding_dim=8": f"{kind} ends in a projection",
    }.items():
        with pytest.raises(UserError, match=words):
            config.load(DIGITS, [f"task.kind={kind}", override])


# Whole runs, as a person starts them.
# Few steps of plain SGD: in float32 a rounding flips a ReLU here and there, and AdamW makes a step of a rounding.
FEW = ["data.batch_size=96", "train.steps=5", "train.precision=full", "train.cpu_threads=1", "score=[]"]
# A small rate: rounding can put an activation on the other side of a ReLU's kink, and what follows grows with the rate.
FEW += ["optim.name=sgd", "optim.lr=1.0e-3", "optim.warmup_epochs=0", "optim.lars=null"]
KIND = {
    "moco": ["task.queue_size=200"],
    "moco_v3": ["task.kind=moco_v3", "task.hidden_dim=32", "optim.lr=5.0e-4"],  # at twice the rate one ReLU flips
}


def launch(world: int, port: int, path: Path, *overrides: str) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    several = ["--multi_gpu", "--num_processes", str(world), "--main_process_port", str(port)] if world > 1 else []
    command = [*launcher, *several, "-m", "ssl_transfer", "run", str(path), *FEW, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(run: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return torch.tensor([line["loss"] for line in lines], dtype=torch.float64)


def assert_same_run(run: Path, expected: Path) -> None:
    torch.testing.assert_close(losses(run), losses(expected), rtol=1e-5, atol=0)
    found = load_file(run / "model.safetensors")
    for name, weight in load_file(expected / "model.safetensors").items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["moco", "moco_v3"])
def test_a_run_is_the_same_on_two_processes_and_when_it_is_stopped(kind, tmp_path, free_port):
    given = config.load(DIGITS, [*FEW, *KIND[kind], f"train.runs={tmp_path / 'one'}"])
    one = recipe.run(given)
    assert len(losses(one)) == 5

    stopped = config.load(DIGITS, [*FEW, *KIND[kind], f"train.runs={tmp_path / 'stopped'}"])
    with pytest.raises(Interrupted):
        recipe.run(stopped, stop=lambda step: step == 3)
    continued = recipe.run(stopped)
    assert torch.equal(losses(continued), losses(one))
    expected = load_file(one / "model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in load_file(continued / "model.safetensors").items())

    launch(2, free_port, DIGITS, *KIND[kind], f"train.runs={tmp_path / 'two'}")
    assert_same_run(tmp_path / "two" / "digits-moco", one)


@pytest.mark.slow
def test_what_is_exported_is_the_model_that_asks_with_its_projection(tmp_path):
    given = config.load(DIGITS, [*FEW, "train.steps=2", f"train.runs={tmp_path}"])
    model, spec = load_model(recipe.run(given))
    assert spec.head == HeadSpec("projection", 64, None, num_layers=2, batch_norm=False)
    assert model.outputs(torch.rand(2, 1, 8, 8)).keys() == {"features", "projection"}
    fresh = untrained(given, spec)
    moved = max((one - other).abs().max() for one, other in zip(model.parameters(), fresh.parameters(), strict=True))
    assert moved > 1e-4  # the trailing copy, with a momentum of 0.99, has hardly moved in the second of two steps


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="SSL_TRANSFER_DATA names no folder with CIFAR")
@pytest.mark.parametrize("name", ["moco", "moco-v3"])
def test_cifar10_is_the_same_on_two_processes(name, tmp_path, free_port):
    path = ROOT / "recipes" / "cifar10" / f"{name}.yaml"
    small = [f"data.root={REAL}", "data.download=false", "model.backbone=cifar_resnet8", "model.stem=default"]
    small += ["train.steps=3"]
    one = recipe.run(config.load(path, [*FEW, *small, f"train.runs={tmp_path / 'one'}"]))
    launch(2, free_port, path, *small, f"train.runs={tmp_path / 'two'}")
    assert_same_run(tmp_path / "two" / f"cifar10-{name}", one)


def test_a_queue_keeps_its_precision():
    rows = pushed(torch.zeros(4, 2), torch.ones(2, 2, dtype=torch.float64), views=1)
    assert torch.equal(rows, torch.tensor([[1.0, 1], [1, 1], [0, 0], [0, 0]])) and rows.dtype == torch.float32
