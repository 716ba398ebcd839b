r"""Images per second of SimCLR pretraining: this program, lightly's example script, and the same step without data.

    OMP_NUM_THREADS=2 python benchmarks/train.py      # mobilenetv3_small_050, batch 256, float32
    python benchmarks/train.py --device cuda --backbone resnet18 --stem cifar --batch-size 512 --precision bf16 \
        --workers 8

All train the same network on the same images at 32 px, turn about, a few steps at a time, and the median counts.
`constant` is our training loop fed with one batch made beforehand: the ceiling that no way of making views can lift.
`lightly` is what its published CIFAR-10 example does: SimCLRTransform without blur through a DataLoader, NTXentLoss and
SGD, on this network. Memory is the peak above what stands before the first steps, each candidate in its own process.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import recording
import torch
from accelerate import Accelerator
from data import SIMCLR, Pictures, tiles
from lightly.loss import NTXentLoss
from lightly.transforms import SimCLRTransform
from torch.utils.data import DataLoader

from ssl_transfer.context import keep_freed_memory
from ssl_transfer.data import Augment, Batches, Images
from ssl_transfer.models import EmbeddingModel, ProjectionHead, create_backbone
from ssl_transfer.tasks.pretrain import SimCLR
from ssl_transfer.training.engine import Keeping, Plan, fit
from ssl_transfer.training.optim import create_optimizer
from ssl_transfer.training.progress import ProgressReport

SIZE = 32
PIXELS = ((0.5,) * 3, (0.25,) * 3)  # mean and standard deviation


def network(given: argparse.Namespace) -> EmbeddingModel:
    """The network that all candidates train."""
    torch.manual_seed(0)
    mean, std = PIXELS
    backbone = create_backbone(given.backbone, stem=given.stem, image_size=SIZE, mean=mean, std=std)
    head = ProjectionHead(backbone.num_features, hidden_dim=backbone.num_features, embedding_dim=128)
    return EmbeddingModel(backbone, head).to(given.device)


def autocast(given: argparse.Namespace) -> torch.autocast:
    """The arithmetic that all candidates use."""
    return torch.autocast(given.device, torch.bfloat16, enabled=given.precision == "bf16")


def ours(
    given: argparse.Namespace, pixels: torch.Tensor, *, constant: bool = False, compiled: bool = False
) -> Callable[[], float]:
    """Seconds of ``--steps`` steps of our training loop."""
    accelerator = Accelerator(cpu=given.device == "cpu")
    images = Images(pixels, None, None, "tiles", "train", *PIXELS).to(given.device)
    batches = Batches(images, [Augment(SIZE, **SIMCLR, compiled=compiled)] * 2, seed=0, batch_size=given.batch_size)
    model = network(given).to(memory_format=torch.channels_last)
    task = SimCLR(model, temperature=0.5).to(given.device)
    optimizer = create_optimizer(task, name="sgd", lr=0.06, weight_decay=5e-4)
    made = batches.batch(0)

    def steps() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return fit(
                task,
                (lambda step: made) if constant else batches.batch,
                optimizer,
                plan=Plan(0, given.batch_size, batches.steps_per_epoch, given.steps, lambda step: 0.06),
                keeping=Keeping(Path(folder), checkpoint_every=given.steps, log_every=20),
                accelerator=accelerator,
                autocast=lambda: autocast(given),
                progress=ProgressReport("", None),
            ).seconds

    return steps


def constant(given: argparse.Namespace, pixels: torch.Tensor) -> Callable[[], float]:
    """Our loop on one batch, again and again."""
    return ours(given, pixels, constant=True)


def ours_compiled(given: argparse.Namespace, pixels: torch.Tensor) -> Callable[[], float]:
    """Our loop with views by compiled operations; the network is not compiled, so that the ceiling is the same."""
    return ours(given, pixels, compiled=True)


def lightly(given: argparse.Namespace, pixels: torch.Tensor) -> Callable[[], float]:
    """The loop of lightly's example, on this network."""
    transform = SimCLRTransform(input_size=SIZE, cj_strength=0.5, gaussian_blur=0.0)
    loader = DataLoader(
        Pictures(pixels, transform),
        given.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=given.workers,
        persistent_workers=given.workers > 0,
        pin_memory=given.device == "cuda",
    )
    model = network(given)
    model.backbone.mean.zero_(), model.backbone.std.fill_(1)  # the transform normalizes
    criterion, optimizer = NTXentLoss(temperature=0.5), torch.optim.SGD(model.parameters(), lr=0.06)
    source = forever(loader)

    def steps() -> float:
        start = time.perf_counter()
        for _ in range(given.steps):
            first, second = (view.to(given.device, non_blocking=True) for view in next(source)[:2])
            with autocast(given):
                loss = criterion(model(first), model(second))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
        return time.perf_counter() - start

    return steps


def forever(loader: DataLoader) -> Iterator:
    """Batches of one epoch after another."""
    while True:
        yield from loader


def main() -> None:
    """Measure, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--backbone", default="mobilenetv3_small_050")
    parser.add_argument("--stem", default="default")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--precision", default="full", choices=["full", "bf16"])
    parser.add_argument("--workers", type=int, default=0, help="of lightly's DataLoader")
    parser.add_argument("--steps", type=int, default=5, help="of a candidate before it is the next one's turn")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()

    if given.device == "cpu":
        keep_freed_memory()  # as a run does; the peer gains from it too
    pixels = tiles(SIZE)
    makers = (constant, ours, ours_compiled, lightly)
    memory = {c.__name__: recording.extra_memory_alone(c, given, pixels, device=given.device) for c in makers}
    candidates = {c.__name__: c(given, pixels) for c in makers}
    with contextlib.redirect_stdout(None):
        _, seconds = recording.turn_about(candidates, given.rounds)

    print(
        f"{given.backbone}, {SIZE} px, batch {given.batch_size}, {given.precision}, {given.device}, "
        f"{torch.get_num_threads()} threads, {given.workers} workers, {given.rounds} rounds of {given.steps} steps"
    )
    results = []
    for name in candidates:
        found = [given.steps * given.batch_size / taken for taken in seconds[name]]
        of_ceiling = median(ceiling / taken for taken, ceiling in zip(seconds[name], seconds["constant"], strict=True))
        results.append(
            dict(
                candidate=name,
                images_per_second=median(found),
                of_ceiling=of_ceiling,
                lowest=min(found),
                highest=max(found),
                extra_memory_mib=memory[name],
            )
        )
        print(
            f"  {name:13s} {median(found):9,.0f} images/s   {100 * of_ceiling:5.1f} % of the ceiling"
            f"   {memory[name]:6.0f} MiB   ({min(found):,.0f} to {max(found):,.0f})"
        )
    recording.write("train", given, results=results)


if __name__ == "__main__":
    main()
