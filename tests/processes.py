"""The same computation on one process and on several gloo processes."""

import gc
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import spawn

Compute = Callable[[str, int, int], Mapping[str, Tensor]]  # (kind, rank, world) -> values by name


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def assert_same_on(
    world: int, compute: Compute, expected: Mapping[str, Mapping[str, Tensor]], *, rtol: float, atol: float
) -> None:
    """Each of ``world`` processes finds, for every kind, the values that one process found."""
    spawn(_compare, (world, find_free_port(), compute, expected, rtol, atol), nprocs=world)


def _compare(
    rank: int,
    world: int,
    port: int,
    compute: Compute,
    expected: Mapping[str, Mapping[str, Tensor]],
    rtol: float,
    atol: float,
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=world)
    for kind, values in expected.items():
        found = compute(kind, rank, world)
        assert found.keys() == values.keys()
        for name, value in values.items():
            torch.testing.assert_close(
                found[name], value, rtol=rtol, atol=atol, msg=lambda text, n=f"{kind} {name}": f"{n}: {text}"
            )
    dist.destroy_process_group()


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of what each process holds, on every process."""
    if not dist.is_initialized():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def on_two_processes(check: Callable[..., None], *arguments: Any) -> None:
    """``check(rank, *arguments)`` on each of two gloo processes, with what a launcher puts in the environment."""
    spawn(_check, (find_free_port(), check, *arguments), nprocs=2)


def _check(rank: int, port: int, check: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    check(rank, *arguments)
    dist.barrier()
    gc.collect()  # networks whose training was interrupted would keep the group, whose threads abort Python at its end
    dist.destroy_process_group()
