"""Every way of transfer: it trains, several processes are one, and parts are the whole."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer import config, losses
from ssl_transfer.building.task import build_task
from ssl_transfer.data import Batch, load_images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.losses.relational.rkd import rkd_distance
from ssl_transfer.models import EmbeddingModel, Frozen
from ssl_transfer.models.checkpoint import ModelSpec, build_model
from ssl_transfer.tasks import embed as embedding
from ssl_transfer.tasks import transfer
from ssl_transfer.tasks.embed import embed, number_of_parts
from ssl_transfer.tasks.sections.transfer import TransferTask
from tests.processes import assert_same_on, sum_over_processes

KINDS = sorted(get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(TransferTask))
SMALL = {"seed": {"queue_size": 24}, "crd": {"negatives": 16, "width": 8}}  # where the defaults are for large data sets
RECIPE = Path(__file__).parent.parent.parent / "recipes" / "digits" / "transfer.yaml"
IMAGES = 12


def network(name: str, seed: int) -> EmbeddingModel:
    torch.manual_seed(seed)
    return build_model(ModelSpec(name, "default", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,)))


TWO = "task.teacher=[{timm: a, weight: 1}, {timm: b, weight: 3}]"  # the networks are given


def task_of(kind: str, *, seed: int = 0, task: Mapping[str, object] = MappingProxyType({}), **train) -> nn.Module:
    """The task of a kind; of "rkd from two", say, that of two teachers of which a step may leave one out."""
    kind, _, several = kind.partition(" from ")
    teachers = [network("tiny_convnet", 1), *([network("cifar_resnet14", 2)] if several else [])]
    if several and kind != "regression":  # which always asks all
        task = {"teacher_dropout": 0.5, **task}
    settings = [
        *([TWO] if several else []),
        *(f"task.{key}={value}" for key, value in {**SMALL.get(kind, {}), **task}.items()),
    ]
    train_settings = [f"train.{key}={value}" for key, value in train.items()]
    recipe = config.load(RECIPE, [f"task.kind={kind}", f"seed={seed}", *settings, *train_settings])
    images = load_images("digits", Path(), split="train", download=False)
    return build_task(recipe, network("cifar_resnet8", 0), teachers, images, steps_per_epoch=1).double().train()


def share_of_batch(step: int, rank: int = 0, world: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = torch.rand(2, IMAGES, 1, 8, 8, generator=generator, dtype=torch.float64)
    index = torch.randperm(1442, generator=generator)[:IMAGES]
    own = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    # Views are float32 in a run; float64 here tells a wrong gradient from rounding.
    return Batch(tuple(views[:, own]), index[own], labels=None, step=step)


def in_float32(batch: Batch) -> Batch:
    return replace(batch, views=tuple(view.float() for view in batch.views))


def gradients_of_two_steps(kind: str, rank: int = 0, world: int = 1, **train) -> dict[str, torch.Tensor]:
    """Losses, and the gradients of a second step that already sees what the first left in queues and memories."""
    task = task_of(kind, **train)
    found = {}
    if world > 1:
        synchronize_batch_norm(task.model)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    runner = DistributedDataParallel(task, broadcast_buffers=False) if world > 1 else task
    for step in range(2):
        task.zero_grad()
        share = runner(share_of_batch(step, rank, world))["loss"]
        (share * world).backward()
        found[f"loss {step}"] = sum_over_processes(share.detach())
    found |= {name: weight.grad for name, weight in task.named_parameters() if weight.requires_grad}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_value_and_gradient_of_every_kind_do_not_depend_on_the_number_of_processes(world):
    kinds = (*KINDS, "relaxed_contrastive from two", "rkd from two", "regression from two")
    expected = {kind: gradients_of_two_steps(kind) for kind in kinds}
    assert all(len(values) > 10 for values in expected.values())
    assert_same_on(world, gradients_of_two_steps, expected, rtol=1e-7, atol=1e-9)


def test_from_several_teachers_the_loss_is_the_weighted_mean_of_those_that_a_step_asks():
    seen = set()
    for step in range(8):
        task, batch = task_of("pkt from two"), share_of_batch(step)
        asked: list[nn.Module] = []
        for teacher in task.teachers:
            teacher.register_forward_pre_hook(lambda module, arguments, asked=asked: asked.append(module))
        shares = task.shares(step)
        found = task(batch)["loss"]
        assert asked == [task.teachers[place] for place in shares] and sum(shares.values()) == 1
        assert shares in ({0: 0.25, 1: 0.75}, {0: 1.0}, {1: 1.0})
        seen.add(tuple(shares))
        with torch.no_grad():
            views = torch.cat(batch.views)
            student = task_of("pkt").model(views)
            parts = [share * losses.pkt(student, task.teachers[place](views)) for place, share in shares.items()]
        torch.testing.assert_close(found.detach(), sum(parts), rtol=1e-12, atol=0)
    assert seen == {(0, 1), (0,), (1,)}


def test_regression_has_a_layer_for_each_teacher_and_averages_what_it_asks_of_them():
    task, batch = task_of("regression from two", task={"weight": 3.0}), share_of_batch(0)
    with torch.no_grad():
        views = torch.cat(batch.views)
        student = task_of("regression").model(views)
        parts = [
            share * losses.regression(layer(student), teacher(views))
            for share, layer, teacher in zip((0.25, 0.75), task.layers, task.teachers, strict=True)
        ]
    torch.testing.assert_close(task(batch)["loss"].detach(), 3.0 * sum(parts), rtol=1e-12, atol=0)
    assert task.layers[0] is not task.layers[1]


def test_which_teachers_a_step_leaves_out_depends_on_the_seed_and_the_step_alone():
    def asked(seed: int, dropout: float = 0.3) -> list[tuple[int, ...]]:
        teachers = [Frozen(nn.Identity()) for _ in range(3)]
        settings = {"teacher_weights": [1.0] * 3, "teacher_dropout": dropout, "seed": seed}
        task = transfer.RelationalTransfer(nn.Identity(), teachers, losses.pkt, **settings)
        return [tuple(task.shares(step)) for step in range(3000)]

    found = asked(0)
    assert found == asked(0) and found != asked(1) and all(found)
    for teacher in range(3):  # 0.3, less the third of 0.3^3 in which the last one stays
        left_out = sum(teacher not in step for step in found) / 3000
        assert left_out == pytest.approx(0.3 - 0.3**3 / 3, abs=5 * (0.3 * 0.7 / 3000) ** 0.5)
    assert {len(step) for step in asked(0, 0.9999)} == {1}
    assert set(asked(0, 0.0)) == {(0, 1, 2)}


def test_a_teacher_that_is_let_go_cannot_be_asked_and_what_is_remembered_of_it_can():
    task, batch = task_of("rkd from two", task={"teacher_dropout": "null"}), share_of_batch(0)
    expected = task(batch)["loss"].detach()
    with torch.no_grad():
        remembered = task.teachers[1](torch.cat(batch.views))
    task = task_of("rkd from two", task={"teacher_dropout": "null"})
    task.let_go([1])
    assert sum(isinstance(module, Frozen) for module in task.modules()) == 1
    with pytest.raises(NotImplementedError):
        task(batch)
    task = task_of("rkd from two", task={"teacher_dropout": "null"})
    task.let_go([1])
    assert torch.equal(task(replace(batch, remembered=(None, remembered)))["loss"].detach(), expected)


def test_every_loss_of_the_library_is_a_kind_of_transfer():
    kinds = {"FitNet": "fitnet", "VID": "vid", "rkd_distance": "rkd", "rkd_angle": "rkd"}
    kinds |= {"ContrastiveRepresentation": "crd"}
    assert {kinds.get(loss, loss) for loss in losses.__all__} - {"nt_xent"} == set(KINDS)  # that is SimCLR's


WEIGHTS = {"rkd": ("distance_weight", "angle_weight")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_multiplies_the_loss(kind):
    found = []
    for factor in (1.0, 3.0):
        settings = {name: 0.7 * factor for name in WEIGHTS.get(kind, ("weight",))}
        found.append(task_of(kind, task=settings)(share_of_batch(0))["loss"].item())
    assert found[1] == pytest.approx(3 * found[0], rel=1e-12) and found[0] > 0


@pytest.mark.parametrize("kind", ["relaxed_contrastive", "relaxed_multi_similarity"])
def test_a_contextual_affinity_knows_which_rows_show_the_same_image(kind):
    settings = {"affinity": "contextual", "neighbors": 3}
    task, batch = task_of(kind, task=settings), share_of_batch(0)
    found = task(batch)["loss"]
    with torch.no_grad():
        views = torch.cat(batch.views)
        pair = task_of(kind, task=settings).model(views), task.teachers[0](views)
    loss, index = getattr(losses, kind), batch.index.repeat(2)
    torch.testing.assert_close(found.detach(), loss(*pair, image=index, **settings), rtol=1e-9, atol=0)
    others = torch.arange(len(index))  # as if every row showed an image of its own
    assert not torch.isclose(found.detach(), loss(*pair, image=others, **settings), rtol=1e-6)


def test_negatives_are_drawn_anew_at_each_step_as_a_function_of_the_seed_and_the_step():
    def drawn(seed: int, step: int) -> torch.Tensor:
        task, seen = task_of("crd", seed=seed), []
        task.loss.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[3]))
        task(share_of_batch(step))
        return seen[0]

    first = drawn(0, 0)
    assert torch.equal(drawn(0, 0), first) and first.shape == (2 * IMAGES, 16) and len(first.unique()) > IMAGES
    assert not torch.equal(drawn(0, 1), first) and not torch.equal(drawn(1, 0), first)


def test_the_student_sees_one_part_at_a_time():
    task, at_a_time = task_of("pkt", micro_batch_size=6), []
    task.model.register_forward_pre_hook(lambda module, given: at_a_time.append(len(given[0])))
    task(share_of_batch(0))
    assert sum(at_a_time) == 2 * IMAGES and max(at_a_time) <= 6


def test_crd_is_what_its_loss_gives_times_the_weight():
    task, given = task_of("crd", task={"weight": 3.0}), []
    task.loss.register_forward_hook(lambda module, arguments, loss: given.append(loss.detach()))
    found = task(share_of_batch(0))["loss"]
    assert len(given) == 1
    torch.testing.assert_close(found.detach(), 3 * given[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_the_student_and_never_the_teacher(kind):
    task = task_of(kind).float()
    teacher = next(module for module in task.modules() if isinstance(module, Frozen))
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    batch = in_float32(share_of_batch(0))
    found = []
    for _ in range(12):
        loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < found[0]
    after = teacher.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any("teacher.module" in name for name in task.state_dict())


@pytest.mark.parametrize("kind", ["relaxed_contrastive", "rkd", "regression", "seed", "crd", "soft_targets"])
def test_parts_give_the_gradient_of_the_whole_batch(kind):
    whole, parts = task_of(kind), task_of(kind, micro_batch_size=5)
    for task in (whole, parts):
        for module in task.modules():  # without batch statistics, that is: a network without batch norm
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        task(share_of_batch(0))["loss"].backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-6, atol=1e-12, msg=name)


def test_seed_compares_at_the_temperatures_that_it_was_given():
    temperatures = {"student_temperature": 0.5, "teacher_temperature": 0.3}
    task, batch = task_of("seed", task=temperatures), share_of_batch(0)
    queue, views = task.queue.clone(), torch.cat(batch.views)
    with torch.no_grad():
        student, teacher = task.adapter(task.model(views)), task.teachers[0](views)
        expected = losses.seed(student, teacher, queue, **temperatures)
        torch.testing.assert_close(task(batch)["loss"], expected)


def gradients_in_parts(kind: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    return gradients_of_two_steps(kind, rank, world, micro_batch_size=IMAGES)  # two parts


@pytest.mark.slow
def test_batch_norm_in_parts_sees_the_same_images_on_three_processes():
    expected = {kind: gradients_in_parts(kind) for kind in ("rkd", "crd", "soft_targets")}
    assert expected["rkd"]["loss 0"] != gradients_of_two_steps("rkd")["loss 0"]  # other statistics than the whole's
    assert_same_on(3, gradients_in_parts, expected, rtol=1e-7, atol=1e-9)


def test_parts_that_processes_cannot_share_evenly_are_refused_with_a_size_that_they_can(monkeypatch):
    images = torch.zeros(2 * 6, 3)  # two views of six images on each of two processes
    monkeypatch.setattr(embedding, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="micro_batch_size 5 cuts the 24 views of a batch into 5 parts.*choose 4"):
        number_of_parts(images, 5, views=2)
    assert number_of_parts(images, 4, views=2) == 6
    with pytest.raises(ValueError, match="choose 4"):
        number_of_parts(images, 1, views=2)
    with pytest.raises(ValueError, match="choose 8"):  # four parts, each of two images a process
        number_of_parts(torch.zeros(2 * 8, 3), 11, views=2)
    assert number_of_parts(images, 24, views=2) == number_of_parts(images, None, views=2) == 1


@pytest.mark.parametrize("kind", ["relaxed_contrastive", "rkd", "regression", "seed", "crd"])
def test_rows_are_gathered_in_float32_whatever_the_network_computes_in(kind, monkeypatch):
    task, batch, gathered = task_of(kind).float(), in_float32(share_of_batch(0)), []

    def gather(rows: torch.Tensor) -> torch.Tensor:
        gathered.append(rows.dtype)
        return rows

    monkeypatch.setattr(transfer, "gather_rows", gather)
    with torch.autocast("cpu", torch.bfloat16):
        task(batch)
        assert task.model(batch.views[0]).dtype == task.teachers[0](batch.views[0]).dtype == torch.bfloat16
    assert [dtype for dtype in gathered if dtype.is_floating_point] == [torch.float32] * 2


def test_parts_keep_only_one_part_of_the_activations():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(20)))

    def kept(micro_batch_size: int | None) -> int:
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() if tensor.shape[0] != 64 else 0  # weights are kept anyway
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            embed(model, torch.randn(96, 64), micro_batch_size, views=1).sum()
        return total

    assert kept(8) < kept(None) / 10


def test_running_statistics_see_each_part_once():
    images = torch.randn(12, 3, 4, 4) + 2
    model, expected = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    embed(model, images, 6, views=1).sum().backward()
    for first in range(2):
        expected(images[first::2])
    for name, buffer in expected.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer)
    assert model.momentum == expected.momentum


def test_dropout_masks_are_the_same_in_both_passes():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    images = torch.randn(6, 4)
    torch.manual_seed(4)
    embeddings = embed(model, images, 2, views=1)
    student = embeddings.detach().requires_grad_()
    rkd_distance(student, images).backward()
    embeddings.backward(student.grad)
    torch.manual_seed(4)
    expected = torch.stack([model(images[first::3]) for first in range(3)], dim=1).flatten(0, 1)
    torch.testing.assert_close(embeddings, expected)
    grad, model[0].weight.grad = model[0].weight.grad, None
    expected.backward(student.grad)
    torch.testing.assert_close(grad, model[0].weight.grad)
