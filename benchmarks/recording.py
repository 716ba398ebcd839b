"""What the benchmarks share: the machine's name, memory at its peak, and the file that results are written to."""

import argparse
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import torch

MIB = 2**20


def turn_about(
    candidates: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What each candidate returns at first, while it warms up and compiles, and then in each of ``rounds`` rounds."""
    first = {name: measure() for name, measure in candidates.items()}
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, measure in candidates.items():
            found[name].append(measure())
    return first, found


def machine(device: str) -> str:
    """The name of the GPU, or that of the processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where platform.processor() is often empty
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def resident(field: str) -> int:
    """Bytes: VmRSS, what this process holds now, or VmHWM, the most it held; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def extra_memory(work: Callable[[], object], device: str) -> float:
    """MiB that ``work`` needs at its peak beyond what is taken before it; it also warms up.

    On a CPU memory that an earlier work gave back to its allocator, but not to the system, is not counted again.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the peak to what is taken now
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / MIB


def extra_memory_alone(make: Callable[..., Callable[[], object]], *arguments: object, device: str) -> float:
    """:func:`extra_memory` of what ``make(*arguments)`` returns, in a fresh process, where nothing can be reused."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_made_and_measured, make, arguments, device).result()


def _made_and_measured(make: Callable[..., Callable[[], object]], arguments: tuple, device: str) -> float:
    return extra_memory(make(*arguments), device)


def write(program: str, options: argparse.Namespace, **tables: Sequence[dict]) -> None:
    """Write results/PROGRAM-DEVICE.json: what was asked for, on which machine, and what came out."""
    asked = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    report = asked | dict(
        machine=machine(options.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        date=datetime.now(UTC).date().isoformat(),
        **tables,
    )
    path = Path(__file__).parent / "results" / f"{program}-{options.device}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\n{path}")
