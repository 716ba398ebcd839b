"""Time and extra peak memory of relaxed_contrastive, value and gradient, against what one would run instead.

    python benchmarks/losses.py                                    # on this CPU, with all its cores
    python benchmarks/losses.py --device cuda --n 1024 8192 65536
    python benchmarks/losses.py --authors ../LabelRelaxation-CVPR21 --n 1024 4096
    python benchmarks/losses.py --all                              # every loss at n = 1,024, for docs/losses.md

Candidates are timed turn about in one process and the median counts, for times and for ratios of pairs. Memory is the
peak above what the inputs take: of the allocator on a GPU, of a fresh process on a CPU. The ideal is the number of
multiplications and additions in the four matmuls that are needed, 2 n^2 (3 d_student + d_teacher), at the rate of a
large square float32 matmul measured in the same run. Prints tables, writes benchmarks/results/losses-<device>.json.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from statistics import median

import recording
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from ssl_transfer import losses

SIZES = [256, 1024, 4096, 8192, 16384, 65536]
Loss = Callable[[Tensor, Tensor], Tensor]


def dense_twin(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula in plain PyTorch on n x n matrices, differentiated by autograd."""
    teacher = normalize(teacher, dim=1)
    w = torch.exp(2 * (teacher @ teacher.T) - 2)
    squares = student.square().sum(1)
    squared = (squares[:, None] + squares - 2 * student @ student.T).clamp(min=1e-12)
    off_diagonal = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    distance = squared.sqrt() * off_diagonal
    d = distance / distance.mean(1, keepdim=True)
    return ((w * d.square() + (1 - w) * (1 - d).relu().square()) * off_diagonal).sum() / len(student)


def authors(path: Path) -> Loss:
    """``Relaxed_Contra`` of a clone of tjddus9597/LabelRelaxation-CVPR21."""
    sys.modules.setdefault("utils", types.ModuleType("utils"))  # imported there, and not used by this loss
    spec = importlib.util.spec_from_file_location("relaxed_losses", path / "code" / "Relaxed_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Relaxed_Contra(sigma=1, delta=1)


def candidates(arguments: argparse.Namespace) -> dict[str, Loss]:
    """The losses compared, by name."""
    found = {"ours": losses.relaxed_contrastive, "dense twin": dense_twin}
    return found | ({"authors": authors(arguments.authors)} if arguments.authors else {})


def inputs(n: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """Student and teacher of ``n`` random rows."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(n, width, generator=generator).to(device) for _ in range(2))
    return student.requires_grad_(), teacher


def step(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    """Value and gradient, once."""
    torch.autograd.grad(loss(student, teacher), student)


def seconds(work: Callable[[], object], device: str) -> float:
    """How long one call of ``work`` takes, until the device is done."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def interleaved(works: dict[str, Callable[[], object]], device: str, budget: float) -> dict[str, list[float]]:
    """Times of every work, turn about, for ``budget`` seconds but at least three and at most 200 rounds.

    Each round begins with another of them: whoever runs after the large matmul finds the caches cold.
    """
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    start = time.perf_counter()
    while len(times["ideal"]) < 3 or (time.perf_counter() - start < budget and len(times["ideal"]) < 200):
        for name in names:
            times[name].append(seconds(works[name], device))
        names.append(names.pop(0))
    return times


def extra_memory(loss: Loss, n: int, width: int, device: str) -> int:
    """Bytes that a step needs at its peak above what the inputs take."""
    student, teacher = inputs(n, width, device)
    step(loss, *inputs(64, width, device))  # the matmul library keeps a workspace
    return round(recording.extra_memory(lambda: step(loss, student, teacher), device) * recording.MIB)


def extra_memory_cpu(name: str, n: int, arguments: argparse.Namespace) -> int:
    """In a fresh process, for a peak is never forgotten and an allocator keeps what it was given."""
    command = [sys.executable, __file__, "--measure", name, "--n", str(n), "--width", str(arguments.width)]
    if arguments.authors:
        command += ["--authors", str(arguments.authors)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(result.stdout.split()[-1])


def measure_here(arguments: argparse.Namespace) -> None:
    """Print the extra peak memory of one candidate at one n in this process."""
    loss = candidates(arguments)[arguments.measure]
    print(extra_memory(loss, arguments.n[0], arguments.width, "cpu"))


def matmul(device: str) -> tuple[Callable[[], object], float]:
    """A large square float32 matmul and its number of operations."""
    size = 8192 if device == "cuda" else 2048
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return lambda: a @ b, 2.0 * size**3


def compare(n: int, arguments: argparse.Namespace) -> list[dict]:
    """Every candidate at ``n`` that is not quadratic in memory beyond ``--largest-dense``."""
    device, width = arguments.device, arguments.width
    student, teacher = inputs(n, width, device)
    dense = n <= arguments.largest_dense
    kept = {name: loss for name, loss in candidates(arguments).items() if dense or name == "ours"}
    works = {name: lambda loss=loss: step(loss, student, teacher) for name, loss in kept.items()}
    works["ideal"], operations = matmul(device)
    times = interleaved(works, device, arguments.seconds)
    rate = [operations / t for t in times.pop("ideal")]
    needed = 2 * n**2 * 4 * width
    rows = []
    for name, found in times.items():
        memory = (
            extra_memory(kept[name], n, width, device) if device == "cuda" else extra_memory_cpu(name, n, arguments)
        )
        rows.append(
            {
                "candidate": name,
                "n": n,
                "rounds": len(found),
                "milliseconds": 1e3 * median(found),
                "times_ours": median(t / o for t, o in zip(found, times["ours"], strict=True)),
                "times_ideal": median(t * r / needed for t, r in zip(found, rate, strict=True)),
                "extra_mib": memory / 2**20,
            }
        )
        print(
            "{candidate:>12} {n:>7,} {milliseconds:>11.2f} ms {times_ours:>8.2f} x ours {times_ideal:>8.2f} x ideal"
            " {extra_mib:>9.1f} MiB   ({rounds} rounds)".format(**rows[-1]),
            flush=True,
        )
    return rows


def shares(n: int, arguments: argparse.Namespace) -> list[dict]:
    """What one of 1, 2 and 4 processes computes of a batch of ``n``, and the operations of its matmuls."""
    student, teacher = inputs(n, arguments.width, arguments.device)
    found = []
    for world in (1, 2, 4):
        anchors = slice(0, n // world)

        def share(student, teacher, anchors=anchors):
            return losses.relaxed_contrastive(student, teacher, anchors=anchors)

        with FlopCounterMode(display=False) as counter:
            step(share, student, teacher)
        times = [seconds(lambda share=share: step(share, student, teacher), arguments.device) for _ in range(5)]
        row = {"processes": world, "n": n, "rows": n // world, "gigaflop": counter.get_total_flops() / 1e9}
        found.append(row | {"milliseconds": 1e3 * median(times)})
        print(
            "1 of {processes} processes: {rows:,} of {n:,} rows, {gigaflop:.2f} Gflop, {milliseconds:.1f} ms".format(
                **found[-1]
            )
        )
    return found


def every_loss(n: int, device: str, budget: float) -> list[dict]:
    """Value and gradient of every loss: embeddings of 128, maps of 64 and 128 channels at 8 x 8, 100 classes."""
    student, teacher = inputs(n, 128, device)
    generator = torch.Generator(device).manual_seed(0)
    image = torch.arange(n, device=device) % (n // 2)
    queue = torch.randn(16384, 128, device=device, generator=generator)
    maps = torch.randn(n, 64, 8, 8, device=device, generator=generator, requires_grad=True)
    hints = torch.randn(n, 128, 8, 8, device=device, generator=generator)
    fitnet, vid = losses.FitNet(64, 128).to(device), losses.VID(64, 128).to(device)
    crd = losses.ContrastiveRepresentation(128, 128, 50000).to(device)
    negatives = torch.randint(50000, (n, 4096), generator=generator)
    names = ["relaxed_contrastive", "rkd_distance", "rkd_angle", "pkt", "dark_rank", "similarity_preserving"]
    works: dict[str, Callable[[], Tensor]] = {
        name: lambda name=name: getattr(losses, name)(student, teacher)
        for name in [*names, "correlation_congruence", "regression"]
    }
    contextual = {"affinity": "contextual", "image": image}
    works |= {
        "relaxed_contrastive, contextual": lambda: losses.relaxed_contrastive(student, teacher, **contextual),
        "relaxed_multi_similarity": lambda: losses.relaxed_multi_similarity(student, teacher, image),
        "seed": lambda: losses.seed(student, teacher, queue),
        "fitnet": lambda: fitnet(maps, hints),
        "attention_transfer": lambda: losses.attention_transfer(maps, hints),
        "vid": lambda: vid(maps, hints),
        "contrastive_representation": lambda: crd(student, teacher, image, negatives),
        "soft_targets": lambda: losses.soft_targets(student[:, :100], teacher[:, :100]),
    }
    rows = []
    for name, loss in works.items():

        def work(loss=loss):
            loss().backward()

        times = [seconds(work, device)]  # the first is a rehearsal
        while len(times) < 2 or (len(times) < 50 and sum(times) < budget):
            times.append(seconds(work, device))
        rows.append({"loss": name, "n": n, "rounds": len(times) - 1, "milliseconds": 1e3 * median(times[1:])})
        print("{loss:>32} {milliseconds:>10.1f} ms   ({rounds} rounds)".format(**rows[-1]), flush=True)
    return rows


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--n", type=int, nargs="+", default=SIZES)
    parser.add_argument("--width", type=int, default=128, help="of student and of teacher embeddings")
    parser.add_argument("--authors", type=Path, help="a clone of tjddus9597/LabelRelaxation-CVPR21")
    parser.add_argument(
        "--largest-dense", type=int, default=8192, help="the largest n for candidates with n x n matrices"
    )
    parser.add_argument("--seconds", type=float, default=10, help="to spend on each n")
    parser.add_argument("--all", action="store_true", help="also every other loss at n = 1,024")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure_here(arguments)
    print(
        f"{recording.machine(arguments.device)}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}, "
        f"d = {arguments.width}"
    )
    sections = {
        "candidates": [row for n in arguments.n for row in compare(n, arguments)],
        "shares": shares(4096, arguments),
        "every_loss": every_loss(1024, arguments.device, 4) if arguments.all else [],
    }
    recording.write("losses", arguments, **sections)


if __name__ == "__main__":
    main()
