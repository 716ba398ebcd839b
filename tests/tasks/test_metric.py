"""Metric learning: the losses against plain loops, and several processes against one."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer.catalog.label_losses import ARGUMENTS
from ssl_transfer.data import Augment, Batch, Batches, load_images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.losses.labels import label_loss
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.tasks import metric
from ssl_transfer.tasks.metric import MetricLearning
from ssl_transfer.tasks.sections.base import TaskInputs
from ssl_transfer.tasks.sections.labels import Metric
from ssl_transfer.training.optim import create_optimizer
from tests.processes import assert_same_on, sum_over_processes

STEPS = 20


def rows(n: int = 14, d: int = 5, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return embeddings, torch.arange(n) % classes


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_proxy_anchor_equals_the_formula_of_the_paper():
    """Kim et al., CVPR 2020, equation 4, by loops: proxies with images of their class pull, every proxy pushes."""
    embeddings, labels = rows()
    classes, margin, alpha = 6, 0.1, 32.0  # two classes have no image in the batch
    loss = label_loss("proxy_anchor", num_classes=classes, embedding_dim=5).double()
    proxies, x, y = loss.proxies.tolist(), embeddings.tolist(), labels.tolist()
    pull, push = 0.0, 0.0
    for number, proxy in enumerate(proxies):
        own = [cosine(row, proxy) for row, label in zip(x, y, strict=True) if label == number]
        others = [cosine(row, proxy) for row, label in zip(x, y, strict=True) if label != number]
        pull += math.log(1 + sum(math.exp(-alpha * (s - margin)) for s in own)) if own else 0.0
        push += math.log(1 + sum(math.exp(alpha * (s + margin)) for s in others))
    expected = pull / len(set(y)) + push / classes
    assert loss(embeddings, labels).item() == pytest.approx(expected, rel=1e-9)


def test_triplet_and_contrastive_losses_equal_loops_over_embeddings_of_norm_one():
    embeddings, labels = rows()
    unit = (embeddings / embeddings.norm(dim=1, keepdim=True)).tolist()
    y = labels.tolist()
    n = len(y)
    distance = [[math.dist(unit[i], unit[j]) for j in range(n)] for i in range(n)]
    violations = [
        max(0.0, distance[i][p] - distance[i][j] + 0.1)
        for i in range(n)
        for p in range(n)
        for j in range(n)
        if i != p and y[i] == y[p] and y[j] != y[i]
    ]
    violated = [value for value in violations if value > 0]
    triplet = label_loss("triplet", num_classes=4, embedding_dim=5, margin=0.1)
    assert triplet(embeddings, labels).item() == pytest.approx(sum(violated) / len(violated), rel=1e-6)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    same = [distance[i][j] for i, j in pairs if y[i] == y[j]]
    apart = [1.0 - distance[i][j] for i, j in pairs if y[i] != y[j] and distance[i][j] < 1.0]
    assert same and apart
    contrastive = label_loss("contrastive", num_classes=4, embedding_dim=5, neg_margin=1.0)
    expected = sum(same) / len(same) + sum(apart) / len(apart)
    assert contrastive(embeddings, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_loss_depends_on_the_order_of_the_rows(name):
    embeddings, labels = rows(n=40)
    loss = label_loss(name, num_classes=4, embedding_dim=5).double()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(embeddings[order], labels[order]), loss(embeddings, labels), rtol=1e-10, atol=0)


def test_an_unknown_loss_or_argument_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="no loss named 'arcface': choose proxy_anchor, multi_similarity"):
        label_loss("arcface", num_classes=3, embedding_dim=4)
    with pytest.raises(ValueError, match="triplet has no argument alpha: it has margin"):
        label_loss("triplet", num_classes=3, embedding_dim=4, alpha=1.0)


def task_of(name: str, *, freeze_batch_norm: bool = False, **settings) -> MetricLearning:
    torch.manual_seed(0)
    head = HeadSpec("embedding", 6)
    spec = ModelSpec("tiny_convnet", "default", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,), head=head)
    loss = label_loss(name, num_classes=10, embedding_dim=6)
    return MetricLearning(build_model(spec), loss, freeze_batch_norm=freeze_batch_norm, **settings).train()


def batches(rank: int = 0, world: int = 1) -> Batches:
    images = load_images("digits", Path(), split="train", download=False)
    views = [Augment(8, crop_scale=(0.5, 1.0))] * 2
    return Batches(images, views, seed=0, batch_size=12, per_class=2, rank=rank, world=world)


def parameters_after_training(name: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Parameters and the losses summed over processes; in float64, which tells a wrong gradient from rounding."""
    task, source = task_of(name).double(), batches(rank, world)
    if world > 1:
        synchronize_batch_norm(task)
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    runner = DistributedDataParallel(task, broadcast_buffers=False) if world > 1 else task
    optimizer = create_optimizer(task, name="adamw", lr=1e-3, weight_decay=1e-4, lr_scales={"loss": 100.0})
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group["lr_scale"]
    found = {}
    for step in range(STEPS):
        share = runner(in_double(source.batch(step)))["loss"]
        (share * world).backward()
        found[f"loss {step}"] = sum_over_processes(share.detach())
        optimizer.step()
        optimizer.zero_grad()
    return found | {key: value.detach() for key, value in task.named_parameters()}


def in_double(batch: Batch) -> Batch:
    return replace(batch, views=tuple(view.double() for view in batch.views))


@pytest.mark.slow
def test_two_processes_end_with_the_parameters_and_proxies_of_one():
    expected = {name: parameters_after_training(name) for name in ("proxy_anchor", "normalized_softmax", "triplet")}
    assert "loss.proxies" in expected["proxy_anchor"] and "loss.W" in expected["normalized_softmax"]
    for values in expected.values():
        assert values["loss 19"] != values["loss 0"]
    assert_same_on(2, parameters_after_training, expected, rtol=1e-6, atol=1e-8)


def test_balanced_shares_put_together_are_the_batch_of_one_process():
    alone, shares = batches().batch(7), [batches(rank, 3).batch(7) for rank in range(3)]
    for view in range(2):
        assert torch.equal(torch.cat([share.views[view] for share in shares]), alone.views[view])
    assert torch.equal(torch.cat([share.labels for share in shares]), alone.labels)
    assert alone.labels.bincount().unique().tolist() in ([2], [0, 2])
    assert batches().steps_per_epoch == 1442 // 12


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_scales():
    task = task_of("proxy_anchor", freeze_batch_norm=True)
    norms = [module for module in task.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.running_mean.clone(), norm.num_batches_tracked.clone()) for norm in norms]
    task(batches().batch(0))["loss"].backward()
    assert norms and task.model.training
    for norm, (mean, count) in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean) and torch.equal(norm.num_batches_tracked, count)
        assert norm.weight.grad.abs().sum() > 0


def test_images_without_labels_are_refused():
    with pytest.raises(ValueError, match="needs labels"):
        task_of("triplet")(replace(batches().batch(0), labels=None))


def test_parts_give_the_gradient_of_the_whole_batch():
    whole, parts = (task_of("proxy_anchor", freeze_batch_norm=True, micro_batch_size=size) for size in (None, 5))
    at_a_time = []
    parts.model.register_forward_pre_hook(lambda module, given: at_a_time.append(len(given[0])))
    for task in (whole, parts):
        task.double()(in_double(batches().batch(0)))["loss"].backward()
    for (name, one), other in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-7, atol=1e-12, msg=name)
    assert max(at_a_time) <= 5


def test_embeddings_are_gathered_in_float32_whatever_the_network_computes_in(monkeypatch):
    gathered = []

    def gather(rows: torch.Tensor) -> torch.Tensor:
        gathered.append(rows.dtype)
        return rows

    monkeypatch.setattr(metric, "gather_rows", gather)
    task, narrowed = task_of("proxy_anchor"), []
    task.loss.register_forward_pre_hook(lambda module, given: narrowed.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        task(batches().batch(0))
        assert task.model(batches().batch(0).views[0]).dtype == torch.bfloat16
    assert gathered == [torch.float32, torch.int64] and narrowed == [False]


def test_metric_learning_of_images_without_labels_is_refused_by_their_name():
    images = load_images("digits", Path(), split="train", download=False)
    inputs = TaskInputs(None, [], replace(images, classes=None), seed=0, total_steps=1, micro_batch_size=None)
    with pytest.raises(ValueError, match="metric learning needs labels, and digits train has none"):
        Metric(kind="metric", loss="proxy_anchor").build(inputs)
