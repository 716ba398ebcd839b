"""Values and gradients on several gloo processes against one, from unequal shards."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_transfer import losses
from ssl_transfer.distributed import gather_rows, own_rows, sum_over_processes
from tests.losses.catalog import CASES, embeddings, value_and_gradient

N = 24
WORLDS = [2, 3, 4]  # N divides by each
Results = dict[str, list[torch.Tensor]]


def uneven(world: int, n: int) -> list[slice]:
    """Shares of ``n`` rows that grow with the rank."""
    bounds = [n * r * (r + 1) // (world * (world + 1)) for r in range(world + 1)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def sums_of_shares(rank: int, world: int) -> Results:
    """Value and gradient of every relational loss, summed over processes with anchors of different numbers."""
    found = {}
    for name, case in CASES.items():
        student, teacher = embeddings(case, N + 1)
        anchors = uneven(world, N + 1)[rank]
        parts = value_and_gradient(case.loss, student, teacher, anchors=anchors)
        for part in parts:
            dist.all_reduce(part)
        found[name] = list(parts)
    return found


class Relational(nn.Module):
    """A student network under a relational loss of the gathered rows."""

    def __init__(self, name: str):
        super().__init__()
        self.loss = CASES[name].loss
        self.net = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6))

    def forward(self, images, teacher, rows):
        student, teacher = gather_rows(self.net(images[rows])), gather_rows(teacher[rows])
        return self.loss(student, teacher, anchors=rows)


class Pointwise(nn.Module):
    """A student network under the feature and logit losses of its own rows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(6, 5, 1)
        self.fitnet, self.vid = losses.FitNet(5, 6), losses.VID(5, 6)

    def forward(self, images, teacher, rows):
        maps, hints = self.net(images[rows, :, None, None].expand(-1, -1, 2, 3)), teacher[rows, :, None, None]
        hints = hints * torch.arange(1, 7).view(2, 3)
        total = self.fitnet(maps, hints, rows=N) + self.vid(maps, hints, rows=N)
        total = total + losses.attention_transfer(maps, hints, rows=N)
        return total + losses.soft_targets(maps.flatten(1), hints[:, :5].flatten(1), rows=N)


class Contrastive(nn.Module):
    """A student network under CRD of the gathered rows, twice, so that the memory of the first call is read."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.net = nn.Linear(6, 5)
        self.crd = losses.ContrastiveRepresentation(5, 6, 40, width=4, generator=generator)

    def forward(self, images, teacher, rows):
        places = torch.arange(N) * 7 % 40 // 2
        negatives = torch.randint(40, (N, 8), generator=torch.Generator().manual_seed(4))
        student, teacher = gather_rows(self.net(images[rows])), gather_rows(teacher[rows])
        options = dict(anchors=rows, add_up=sum_over_processes)
        first = self.crd(student, teacher, places, negatives[rows], **options)
        return first + self.crd(student, teacher, places, negatives.flip(0)[rows], **options)


class TwoViews(nn.Module):
    """A network under NT-Xent of two views of its rows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4))

    def forward(self, images, teacher, rows):
        views = gather_rows(torch.stack((self.net(images[rows]), self.net(teacher[rows])), dim=1))
        return losses.nt_xent(*views.unbind(1), temperature=0.2, anchors=rows)


MODULES = {name: lambda name=name: Relational(name) for name in CASES}
MODULES |= {"fitnet, vid, attention_transfer, soft_targets": Pointwise, "contrastive_representation": Contrastive}
MODULES["nt_xent"] = TwoViews


def weight_gradients(world: int) -> Results:
    """The gradient DDP leaves in every weight after one step on this process's rows of a fixed batch."""
    found = {}
    for name, build in MODULES.items():
        torch.manual_seed(0)
        module = build().double()
        model = DistributedDataParallel(module) if world > 1 else module
        generator = torch.Generator().manual_seed(1)
        images, teacher = (torch.randn(N, 6, generator=generator, dtype=torch.float64) for _ in range(2))
        (world * model(images, teacher, own_rows(N // world))).backward()
        gradients = [parameter.grad.flatten() for parameter in module.parameters()]
        buffers = [buffer.flatten() for buffer in module.buffers()]
        # One vector: where a loss ignores translations, the gradient of the last bias alone is rounding.
        found[name] = [torch.cat(part) for part in (gradients, buffers) if part]
    return found


def run_rank(rank: int, ports: dict[int, int], folder: str) -> None:
    """Take part in every world that this rank belongs to, one after the other: processes are costly to start."""
    torch.set_num_threads(1)
    for world, port in ports.items():
        if rank < world:
            dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=world)
            results = {"sums": sums_of_shares(rank, world), "weights": weight_gradients(world)}
            torch.save(results, Path(folder) / f"{world}-{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where every rank of every world left its results, all losses in one spawn."""
    folder = tmp_path_factory.mktemp("ranks")
    ports = {}
    for world in WORLDS:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            ports[world] = probe.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (ports, str(folder)), nprocs=max(WORLDS))
    return folder


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: f"{world} processes")
def found(request, folder) -> list[dict[str, Results]]:
    """What every rank of one world found."""
    return [torch.load(folder / f"{request.param}-{rank}.pt") for rank in range(request.param)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_sum_of_uneven_shares_over_processes_is_the_loss_of_one(name, found):
    student, teacher = embeddings(CASES[name], N + 1)
    expected = value_and_gradient(CASES[name].loss, student, teacher)
    for rank in found:
        torch.testing.assert_close(rank["sums"][name], list(expected), rtol=1e-12, atol=1e-15)


@pytest.fixture(scope="module")
def alone() -> Results:
    return weight_gradients(world=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_weight_gradient_under_ddp_does_not_depend_on_the_number_of_processes(name, found, alone):
    for rank in found:
        for ours, expected in zip(rank["weights"][name], alone[name], strict=True):
            assert (ours - expected).norm() <= 1e-12 * expected.norm()
