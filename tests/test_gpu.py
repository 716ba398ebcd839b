"""What a GPU computes beside what the CPU computes: every task, optimizer and probe, whole runs, NCCL.

Numbers are compared in float64, which both have: what is left then is rounding in the 16th digit, and no tolerance can
hide a wrong number. In the precisions of runs a step is compared again, within what their rounding explains. Where
there is no GPU the same tests run on a pretended one: ``python -m tests.simulated_cuda.marked``.
"""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState
from torch import nn

from ssl_transfer import recipe
from ssl_transfer.data import Augment, Batches, load_images
from ssl_transfer.distributed import SyncBatchNorm, _GatherRows, gather_shards
from ssl_transfer.errors import Interrupted
from ssl_transfer.models import AveragedModel, MomentumEncoder
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.probes import (
    alignment,
    classification,
    effective_rank,
    multi_label_probe,
    transfer_probe,
    uniformity,
)
from ssl_transfer.training.optim import NAMES, create_optimizer
from tests.probes.synthetic import clouds
from tests.scores.subjects import EVERY_KIND, kinds, scores_of
from tests.simulated_cuda import steps
from tests.stepping import handed, load, step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# Optimizers and their settings, which a single step does not see, have a test of their own. Folds repeat a probe, and
# the protocol kornblith is transfer_probe with 45 penalties, of which one is looked at below.
STEPS = [name for name, (_, more) in steps.TASKS.items() if "optim" not in more]
PROBES = [
    kind
    for kind in kinds(*EVERY_KIND)
    if not (kind.during_training or kind.needs_folds or getattr(kind, "protocol", "") == "kornblith")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With images and a teacher, for the recipes of steps.py."""
    folder = tmp_path_factory.mktemp("gpu")
    steps.prepare(folder)
    return folder


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_that_of_float64_on_the_cpu(name, folder):
    task, batch_of = handed(load(folder, name))
    batch = batch_of(1)
    assert {tensor.device.type for tensor in (*batch.views, batch.index, *task.parameters())} == {"cuda"}
    loss, gradient = step(task, batch, "cpu", torch.float64)
    exact_loss, exact_gradient = step(task, batch, "cuda", torch.float64)
    assert abs(exact_loss - loss) <= 1e-9 * abs(loss)
    assert (exact_gradient - gradient).norm() <= 1e-7 * gradient.norm() > 0

    # float32 has 24 bits, of which the layers of a small network cost a few; a ReLU that another rounding switches is
    # about a thousandth of the gradient.
    float_loss, float_gradient = step(task, batch, "cuda", torch.float32)
    assert abs(float_loss - loss) <= 1e-4 * abs(loss)
    assert (float_gradient - gradient).norm() <= 1e-2 * gradient.norm()
    # bfloat16 has 8, and they may decide which rows are the nearest; the gradient still points where it did.
    narrow_loss, narrow_gradient = step(task, batch, "cuda", torch.float32, autocast=True)
    assert abs(narrow_loss - loss) <= 0.05 * abs(loss)
    assert torch.cosine_similarity(narrow_gradient, gradient, dim=0) > 0.7


def test_a_teacher_is_remembered_as_it_would_answer(folder):
    _, batch_of = handed(load(folder, "relaxed_contrastive fixed views"))
    teacher, _ = load_model(folder / "teacher")
    batch = batch_of(1)
    with torch.no_grad():
        expected = teacher.eval().backbone(torch.cat(batch.views).cpu())
    found = batch.remembered[0]
    assert found.is_cuda and (found.cpu() - expected).norm() <= 2e-3 * expected.norm()  # kept in float16


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_of_held_images(workers, folder):
    """Pinned pixels are copied while the CPU goes on, and what it decodes meanwhile must not end up in them."""
    views = [Augment(32, crop_scale=(0.3, 1.0), flip=0.5)] * 2
    options = {"split": "train", "image_size": 32}
    held = load_images("folder", folder / "images", **options)
    streamed = load_images("folder", folder / "images", **options, resident=False, workers=workers)
    held, streamed = (Batches(images.to("cuda"), views, seed=0, batch_size=16) for images in (held, streamed))
    try:
        found = [streamed.batch(step) for step in range(5)]
    finally:
        streamed.close()
    for number, batch in enumerate(found):
        for own, expected in zip(batch.views, held.batch(number).views, strict=True):
            assert own.is_cuda and torch.equal(own, expected)


class Weights(nn.Module):
    """A table that decays, and a bias that does not."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(5, 3, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_optimizers_take_the_steps_that_they_take_on_the_cpu(name):
    ours, theirs = Weights().cuda(), Weights()
    for weights in (ours, theirs):
        optimizer = create_optimizer(weights, name=name, lr=0.1, weight_decay=0.01)
        for number in range(3):
            (weights.table * (number + 1)).square().sum().add((weights.bias**3).sum()).backward()
            torch.nn.utils.clip_grad_norm_(weights.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.detach().cpu(), other.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("average", [AveragedModel, MomentumEncoder])
def test_averages_of_weights_are_those_of_the_cpu(average):
    models = [nn.Sequential(Weights(), nn.BatchNorm1d(3)).to(device) for device in ("cuda", "cpu")]
    averages = [average(model) for model in models]
    for model, averaged in zip(models, averages, strict=True):
        for parameter in model.parameters():
            parameter.data.add_(1.0)
        averaged.update(model, momentum=0.9)
        averaged.update(model, momentum=0.99)
    for one, other in zip(*(averaged.state_dict().values() for averaged in averages), strict=True):
        assert one.is_cuda
        torch.testing.assert_close(one.cpu(), other)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(folder, monkeypatch):
    """With queue, momentum copy, average and clipping; the health of the model is watched meanwhile."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    overrides = ["train.ema=0.9", "train.clip_norm=1.0", "score=[{kind: monitor, every: 1}]"]
    found = []
    for name in ("whole", "stopped"):
        loaded = load(folder, "moco symmetric", f"name={name}", *overrides)
        if name == "stopped":
            with pytest.raises(Interrupted):
                recipe.run(loaded, stop=lambda done: done == 2)
        run = recipe.run(loaded, stop=lambda done: False)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found.append((lines, load_model(run)[0].state_dict()))
    (whole, weights), (stopped, continued) = found
    assert len(whole) == steps.STEPS and any("effective_rank" in key for line in whole for key in line)
    for one, other in zip(whole, stopped, strict=True):
        same = one.keys() - {"images_per_second", "monitor_seconds", "monitor_share"}
        assert {key: one[key] for key in same} == pytest.approx({key: other[key] for key in same}, rel=1e-4)
    for name, tensor in weights.items():
        torch.testing.assert_close(continued[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: next(iter(kind.columns()), kind.kind))
def test_scores_are_those_of_the_cpu(kind):
    """But for the few of sixty test images that lie on a boundary between classes."""
    there, here = (scores_of("student (small)", 0, [kind], device=device) for device in ("cuda", "cpu"))
    assert [score.metric for score in there] == [score.metric for score in here] != []
    assert [score.value for score in there] == pytest.approx([score.value for score in here], abs=0.05)


def test_measures_that_no_recipe_asks_for_are_those_of_the_cpu():
    (x, y), (test_x, test_y) = (clouds(n, 16, 4, spread=2.0, seed=seed) for n, seed in ((120, 0), (60, 1)))
    several, test_several = (torch.where(torch.stack([of == 0, of > 1], dim=1), 1, -1) for of in (y, test_y))

    def measured(device: str) -> list[float]:
        rows, labels, test_rows, test_labels = (tensor.to(device) for tensor in (x, y, test_x, test_y))
        return [
            alignment(rows, rows.roll(1, 0)),
            uniformity(rows),
            effective_rank(rows),
            transfer_probe(rows, labels, test_rows, test_labels, penalties=[1.0]).score,
            multi_label_probe(rows, several.to(device), test_rows, test_several.to(device), penalties=[1.0]).score,
            classification(rows, labels).calibration_error,
        ]

    assert list(map(float, measured("cuda"))) == pytest.approx(list(map(float, measured("cpu"))), rel=1e-3, abs=0.02)


@pytest.fixture
def nccl(free_port, monkeypatch):
    """A group of one process, as a launcher would ask for it."""

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    for key, value in dict(WORLD_SIZE=1, RANK=0, LOCAL_WORLD_SIZE=1, LOCAL_RANK=0, MASTER_PORT=free_port).items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    forget()
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    forget()


def test_a_run_through_nccl_is_the_run_without(folder, monkeypatch, nccl):
    def losses(name: str) -> list[float]:
        run = recipe.run(load(folder, "relaxed_contrastive", f"name={name}"), stop=lambda done: False)
        return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]

    through = losses("through-nccl")
    assert dist.is_initialized() and AcceleratorState().num_processes == 1
    dist.destroy_process_group()
    for key in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert through == pytest.approx(losses("without-nccl"), rel=1e-4)


def test_collectives_of_nccl_give_one_process_its_own(nccl, free_port):
    dist.init_process_group("nccl", init_method=f"tcp://localhost:{free_port}", rank=0, world_size=1)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 3, 4, 4, generator=generator, dtype=torch.float64)
    own = rows.cuda().requires_grad_()
    gathered = _GatherRows.apply(own)
    (gathered * torch.arange(6.0, device="cuda", dtype=torch.float64)[:, None, None, None]).sum().backward()
    assert torch.equal(gathered, own)
    assert torch.equal(own.grad.cpu(), torch.arange(6.0).double()[:, None, None, None].expand(6, 3, 4, 4))
    assert torch.equal(gather_shards(own.detach(), 6), own)

    plain = nn.BatchNorm2d(3).double()
    synchronized = SyncBatchNorm(deepcopy(plain).cuda())
    images, own = rows.clone().requires_grad_(), rows.cuda().requires_grad_()
    expected, found = plain(images), synchronized(own)
    expected.square().sum().backward(), found.square().sum().backward()
    for one, other in ((found, expected), (own.grad, images.grad), (synchronized.weight.grad, plain.weight.grad)):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-9)
    for one, other in zip(synchronized.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one.cpu(), other)
