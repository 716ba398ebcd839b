r"""Images per second of SimCLR pretraining on one batch that never changes, and what raises this ceiling.

    OMP_NUM_THREADS=2 python benchmarks/ceiling.py --backbone cifar_resnet20 mobilenetv3_small_050
    python benchmarks/ceiling.py --device cuda --backbone resnet18 --stem cifar --batch-size 512

`plain` is float32 in PyTorch's usual memory layout with an optimizer that loops over the weights; the others change
something about it. All train turn about, a few steps at a time, and the median counts. The first steps, with the
seconds that torch.compile takes, are told apart. Writes benchmarks/results/ceiling-<device>.json.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import recording
import torch
from train import SIZE, autocast, network

from ssl_transfer.context import keep_freed_memory
from ssl_transfer.data import Batch
from ssl_transfer.tasks.pretrain import SimCLR

CANDIDATES = (
    (),
    ("channels_last",),
    ("channels_last", "fused"),
    ("channels_last", "fused", "bf16"),
    ("channels_last", "fused", "compile"),
    ("channels_last", "fused", "bf16", "compile"),
)


def candidate(given: argparse.Namespace, backbone: str, changes: tuple[str, ...]) -> Callable[[], float]:
    """Seconds of ``--steps`` steps with some of the changes; compiled, if at all, before it is returned."""
    settings = argparse.Namespace(**vars(given) | {"backbone": backbone})
    settings.precision = "bf16" if "bf16" in changes else "full"
    model = network(settings)
    if "channels_last" in changes:
        model.to(memory_format=torch.channels_last)
    task = SimCLR(model, temperature=0.5).to(given.device)
    # Without fused: one small kernel for each weight and operation.
    optimizer = torch.optim.SGD(task.parameters(), lr=0.06, momentum=0.9, fused="fused" in changes, foreach=False)
    first, second = (torch.rand(given.batch_size, 3, SIZE, SIZE, device=given.device) for _ in range(2))
    batch = Batch((first, second), torch.arange(given.batch_size, device=given.device), labels=None, step=0)
    if "compile" in changes:
        model.backbone.network.compile()

    def steps() -> float:
        loss = torch.zeros(())
        start = time.perf_counter()
        for _ in range(given.steps):
            with autocast(settings):
                loss = task(batch)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()  # waits for the device
        return time.perf_counter() - start

    return steps


def main() -> None:
    """Measure, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--backbone", nargs="+", default=["mobilenetv3_small_050"])
    parser.add_argument("--stem", default="default")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="of a candidate before it is the next one's turn")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.device == "cpu":
        keep_freed_memory()  # as a run does
    results = [result for backbone in given.backbone for result in measure(given, backbone)]
    recording.write("ceiling", given, results=results)


def measure(given: argparse.Namespace, backbone: str) -> list[dict]:
    """One row for each candidate of one network."""
    print(
        f"{backbone}, {SIZE} px, batch {given.batch_size}, {given.device}, {torch.get_num_threads()} threads, "
        f"{given.rounds} rounds of {given.steps} steps"
    )
    candidates = {", ".join(changes) or "plain": candidate(given, backbone, changes) for changes in CANDIDATES}
    first, seconds = recording.turn_about(candidates, given.rounds)
    rows = []
    for name in candidates:
        found = [given.steps * given.batch_size / taken for taken in seconds[name]]
        of_plain = median(plain / taken for taken, plain in zip(seconds[name], seconds["plain"], strict=True))
        row = dict(
            backbone=backbone,
            candidate=name,
            images_per_second=median(found),
            of_plain=of_plain,
            lowest=min(found),
            highest=max(found),
            first_call_s=first[name],
        )
        rows.append(row)
        print(
            f"  {name:36s} {median(found):9,.0f} images/s   {of_plain:5.2f} x plain   "
            f"({min(found):,.0f} to {max(found):,.0f}; first {given.steps} steps in {first[name]:.0f} s)"
        )
    return rows


if __name__ == "__main__":
    main()
