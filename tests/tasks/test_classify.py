"""Learning labels, alone and beside a teacher: values, gradients, and several processes that are one."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer import config
from ssl_transfer.building.task import build_task
from ssl_transfer.data import Batch, load_images
from ssl_transfer.data.views.mixing import draw_mix
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.losses import attention_transfer, rkd_distance, soft_targets
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.tasks.classify import Classify
from tests.processes import assert_same_on, sum_over_processes
from tests.tasks.test_transfer import KINDS, RECIPE, SMALL, share_of_batch

PLAIN = {"label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0}
MIXED = {
    "mixup": {"mixup": 0.8, "label_smoothing": 0.1},
    "cutmix": {"cutmix": 1.0},
    "smoothed": {"label_smoothing": 0.2},
}


def classifier(name: str, seed: int) -> EmbeddingModel:
    torch.manual_seed(seed)
    head = HeadSpec("classifier", 10)
    return build_model(ModelSpec(name, "default", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,), head=head))


def labeled(step: int, rank: int = 0, world: int = 1) -> Batch:
    batch = share_of_batch(step, rank, world)
    return replace(batch, labels=batch.index % 10)


def transfer_with_labels(kind: str, *overrides: str) -> nn.Module:
    small = [f"task.{key}={value}" for key, value in SMALL.get(kind, {}).items()]
    output = "logits" if kind == "soft_targets" else "features"
    labels = ["task.labels=true", f"task.teacher.output={output}", "model.embedding_dim=null"]
    labels += ["task.teacher.recipe.task={kind: classify}"]
    recipe = config.load(RECIPE, [f"task.kind={kind}", *labels, *small, *overrides])
    images = load_images("digits", Path(), split="train", download=False)
    student, teacher = classifier("cifar_resnet8", 0), classifier("tiny_convnet", 1)
    return build_task(recipe, student, [teacher], images, steps_per_epoch=1).double().train()


def task_of(kind: str) -> nn.Module:
    if kind in KINDS:
        return transfer_with_labels(kind)
    return Classify(classifier("cifar_resnet8", 0), **PLAIN | MIXED.get(kind, {}), seed=3).double().train()


def gradients_of_two_steps(kind: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    task = task_of(kind)
    if world > 1:
        synchronize_batch_norm(task)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    runner = DistributedDataParallel(task, broadcast_buffers=False) if world > 1 else task
    found = {}
    for step in range(2):
        task.zero_grad()
        shares = runner(labeled(step, rank, world))
        (shares["loss"] * world).backward()
        found |= {f"{name} {step}": sum_over_processes(share.detach()) for name, share in shares.items()}
    return found | {name: weight.grad for name, weight in task.named_parameters() if weight.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_value_and_gradient_do_not_depend_on_the_number_of_processes(world):
    kinds = ["plain", *MIXED, "soft_targets", "relaxed_contrastive", "crd", "attention_transfer"]
    expected = {kind: gradients_of_two_steps(kind) for kind in kinds}
    assert all(len(values) > 10 for values in expected.values())
    assert_same_on(world, gradients_of_two_steps, expected, rtol=1e-7, atol=1e-9)


def test_loss_is_the_mean_cross_entropy_of_all_views():
    task, batch = task_of("smoothed"), labeled(0)
    logits = task.model(torch.cat(batch.views))
    probabilities = logits.log_softmax(1)
    target = torch.full((10,), 0.2 / 10, dtype=torch.float64)
    rows = []
    for row, label in enumerate([*batch.labels, *batch.labels]):
        of_row = target.clone()
        of_row[label] += 0.8
        rows.append(-(of_row * probabilities[row]).sum())
    torch.testing.assert_close(task(batch)["loss"], torch.stack(rows).mean())


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_are_judged_by_both_labels(kind):
    task, batch = task_of(kind), labeled(5)
    settings = PLAIN | MIXED[kind]
    smoothing = settings.pop("label_smoothing")
    images, losses = [], []
    for view, of_view in enumerate(batch.views):
        mix = draw_mix(seed=3, step=5, view=view, **settings, height=8, width=8)
        images += [mix(of_view[i : i + 1], of_view[11 - i : 12 - i]) for i in range(12)]
    logits = task.model(torch.cat(images))
    for row, of_row in enumerate(logits):
        mix = draw_mix(seed=3, step=5, view=row // 12, **settings, height=8, width=8)
        own, other = batch.labels[row % 12], batch.labels[11 - row % 12]
        of_own, of_other = (cross_entropy(of_row, label, label_smoothing=smoothing) for label in (own, other))
        losses.append(mix.own * of_own + (1 - mix.own) * of_other)
    torch.testing.assert_close(task(batch)["loss"], torch.stack(losses).mean())


OVERRIDES = {"rkd": ["task.angle_weight=0"], "soft_targets": ["task.temperature=3"]}


def plain(student: EmbeddingModel, teacher: EmbeddingModel, images: torch.Tensor, kind: str) -> torch.Tensor:
    """What a labeled transfer adds to cross entropy, written out."""
    if kind == "soft_targets":
        return 0.9 * soft_targets(student(images), teacher(images), temperature=3.0)
    if kind == "attention_transfer":
        maps = zip(student.backbone.feature_maps(images), teacher.backbone.feature_maps(images), strict=True)
        return 1000 * sum(attention_transfer(ours, theirs) for ours, theirs in maps)
    assert kind == "rkd"
    return 25 * rkd_distance(student.features(images), teacher.features(images))


@pytest.mark.parametrize(("kind", "weight"), [("soft_targets", 0.1), ("attention_transfer", 1.0), ("rkd", 1.0)])
def test_labeled_transfer_is_weighted_cross_entropy_plus_the_transfer(kind, weight):
    task, batch = transfer_with_labels(kind, *OVERRIDES.get(kind, ())), labeled(0)
    student = classifier("cifar_resnet8", 0).double().train()
    teacher = classifier("tiny_convnet", 1).double().eval()
    images, labels = torch.cat(batch.views), batch.labels.repeat(2)
    parts = task(batch)
    entropy = weight * cross_entropy(student(images), labels)
    torch.testing.assert_close(parts["cross_entropy"], entropy.detach())
    torch.testing.assert_close(parts["transfer"], plain(student, teacher, images, kind).detach())
    torch.testing.assert_close(parts["loss"].detach(), parts["cross_entropy"] + parts["transfer"])


def test_parts_give_the_gradient_of_the_whole_batch():
    whole, parts = (transfer_with_labels("rkd", f"train.micro_batch_size={size}") for size in ("null", "5"))
    for task in (whole, parts):
        for module in task.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        task(labeled(0))["loss"].backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", ["plain", "mixup"])
def test_a_classifier_sees_one_part_at_a_time(kind):
    settings, at_a_time = PLAIN | MIXED.get(kind, {}), []
    task = Classify(classifier("cifar_resnet8", 0), **settings, seed=3, micro_batch_size=5).double()
    task.model.register_forward_pre_hook(lambda module, given: at_a_time.append(len(given[0])))
    task(labeled(0))
    assert sum(at_a_time) == 24 and max(at_a_time) <= 5


def test_so_does_a_student_that_learns_labels_beside_a_teacher():
    task, at_a_time = transfer_with_labels("rkd", "train.micro_batch_size=5"), []
    task.transfer.model.register_forward_pre_hook(lambda module, given: at_a_time.append(len(given[0])))
    task(labeled(0))
    assert sum(at_a_time) == 24 and max(at_a_time) <= 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_beside_labels_reaches_every_weight_of_the_student(kind):
    task = task_of(kind)
    task(labeled(0))["loss"].backward()
    without = [name for name, weight in task.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not without


def test_classifying_images_without_labels_is_refused():
    with pytest.raises(ValueError, match="classification needs labels, and these images have none"):
        task_of("plain")(share_of_batch(0))
    with pytest.raises(ValueError, match="classification needs labels"):
        task_of("rkd")(share_of_batch(0))
