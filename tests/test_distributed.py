"""Several gloo processes with different shards against one process with all rows."""

import traceback
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer.distributed import (
    SyncBatchNorm,
    gather_rows,
    gather_shards,
    own_rows,
    shard,
    synchronize_batch_norm,
)
from tests.processes import find_free_port, sum_over_processes


def rows(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_gather(rank: int, world: int) -> None:
    everything, weight = rows(12, 5), rows(12, 5, seed=1)
    leaf = everything.chunk(world)[rank].clone().requires_grad_()
    gathered = gather_rows(leaf)
    assert torch.equal(gathered, everything)
    assert own_rows(len(leaf)) == slice(rank * len(leaf), (rank + 1) * len(leaf))

    # A share that reaches the rows of others, and differs from process to process.
    share = (gathered * weight).tanh()[own_rows(len(leaf))].sum() * gathered.square().mean() / (rank + 1)
    share.backward()
    alone = everything.clone().requires_grad_()
    terms = (alone * weight).tanh().chunk(world)
    sum(term.sum() * alone.square().mean() / (other + 1) for other, term in enumerate(terms)).backward()
    torch.testing.assert_close(leaf.grad, alone.grad.chunk(world)[rank], rtol=1e-12, atol=1e-12)
    total = sum(term.sum() * alone.square().mean() / (other + 1) for other, term in enumerate(terms))
    torch.testing.assert_close(sum_over_processes(share.detach()), total.detach(), rtol=1e-12, atol=1e-12)


def check_shards(rank: int, world: int) -> None:
    for length in (1, 2, 7, 12):
        everything = rows(length, 3)
        assert torch.equal(gather_shards(everything[shard(length)], length), everything)


class Net(nn.Module):
    """Every kind of batch norm there is to replace, timm's fused one with its activation among them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fused = BatchNormAct2d(4, act_layer=nn.SiLU)
        self.plain = nn.BatchNorm2d(4, momentum=None)
        self.bare = nn.BatchNorm1d(4, affine=False)

    def forward(self, images):
        return self.bare(self.plain(self.fused(self.conv(images))).mean((2, 3)) ** 2)


def check_batch_norm(rank: int, world: int) -> None:
    torch.manual_seed(0)
    alone = Net().double()
    for norm in (alone.fused, alone.plain):
        nn.init.uniform_(norm.weight)
    torch.manual_seed(0)
    synchronized = Net().double()
    synchronized.load_state_dict(alone.state_dict())
    synchronized = synchronize_batch_norm(synchronized)
    assert sum(isinstance(module, SyncBatchNorm) for module in synchronized.modules()) == 3
    assert synchronized.state_dict().keys() == alone.state_dict().keys()
    warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
    wrapped = DistributedDataParallel(synchronized, broadcast_buffers=False)
    images, weight = 5 + rows(12, 3, 4, 4), rows(12, 4, seed=9)
    expected, own = alone(images), wrapped(images.chunk(world)[rank])
    torch.testing.assert_close(own, expected.chunk(world)[rank], rtol=1e-10, atol=1e-10)
    (expected * weight).sum().backward()
    (own * weight.chunk(world)[rank]).sum().mul(world).backward()  # DDP averages
    for (name, one), other in zip(alone.named_parameters(), synchronized.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-9, msg=name)


def check_running_statistics(rank: int, world: int) -> None:
    for make in (nn.BatchNorm2d, lambda channels: nn.BatchNorm2d(channels, momentum=None)):
        alone, synchronized = make(3).double(), SyncBatchNorm(make(3).double())
        for step in range(3):
            images = 7 + rows(12, 3, 2, 2, seed=step)
            alone(images)
            synchronized(images.chunk(world)[rank])
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(synchronized.get_buffer(name), buffer, rtol=1e-12, atol=1e-12, msg=name)
        images = rows(12, 3, 2, 2, seed=9)
        torch.testing.assert_close(synchronized.eval()(images), alone.eval()(images))


CHECKS = [check_gather, check_shards, check_batch_norm, check_running_statistics]


def run_checks(rank: int, world: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=world)
    for check in CHECKS:
        try:
            check(rank, world)
        except AssertionError:
            (folder / f"{check.__name__}.{rank}").write_text(traceback.format_exc())
        dist.barrier()
    (folder / f"done.{rank}").touch()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
def failures(request, tmp_path_factory) -> Path:
    """The folder where processes left what failed, after all checks ran in one group: starting one is slow."""
    folder = tmp_path_factory.mktemp("ranks")
    spawn(run_checks, (request.param, find_free_port(), folder), nprocs=request.param)
    assert len(list(folder.glob("done.*"))) == request.param
    return folder


def nothing_failed(folder: Path, check) -> None:
    for path in sorted(folder.glob(f"{check.__name__}.*")):
        pytest.fail(path.read_text())


@pytest.mark.slow
def test_gathered_value_and_gradient_equal_one_process(failures):
    nothing_failed(failures, check_gather)


@pytest.mark.slow
def test_shards_of_any_length_come_back_whole_and_in_order(failures):
    nothing_failed(failures, check_shards)


@pytest.mark.slow
def test_synchronized_batch_norm_equals_one_process(failures):
    nothing_failed(failures, check_batch_norm)


@pytest.mark.slow
def test_running_statistics_equal_one_process(failures):
    nothing_failed(failures, check_running_statistics)


def test_one_process_needs_no_group():
    leaf = rows(4, 2).requires_grad_()
    assert gather_rows(leaf) is leaf and gather_shards(leaf, 4) is leaf
    assert shard(5) == slice(0, 5) and own_rows(5) == slice(0, 5)
