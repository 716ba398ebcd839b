"""Views per second of the SimCLR augmentation (without blur), side by side with what a user would run instead.

    OMP_NUM_THREADS=1 python benchmarks/data.py                    # views/s of one core
    python benchmarks/data.py --device cuda --workers 8            # peers keep their workers on the CPU

All candidates make the same kind of view of the same images (tiles of scikit-learn's two photographs) in one process,
turn about, and the median of the rounds counts; for a ratio, the median of each round's ratio. The first round, in
which ours_compiled compiles, does not count; its seconds are printed. On a CPU freed memory is kept, as a run does; the
peers gain from it too. Memory is the peak above what stands before the first epoch, each candidate in a process of its
own. kornia takes part where it is installed.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import median

import recording
import torch
from lightly.transforms import SimCLRTransform
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ssl_transfer.context import keep_freed_memory
from ssl_transfer.data import PRESETS, Augment, Batches, Images

COUNT = 2048
SIMCLR = PRESETS["simclr"][0]
STRENGTHS = {name: SIMCLR[name] for name in ("brightness", "contrast", "saturation", "hue")}


def tiles(size: int) -> Tensor:
    """``COUNT`` overlapping tiles, spread evenly over two photographs of 427 x 640."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photographs = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
    windows = photographs.permute(0, 3, 1, 2).unfold(2, size, 8).unfold(3, size, 8)
    windows = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return windows[torch.linspace(0, len(windows) - 1, COUNT).long()].contiguous()


class Pictures(Dataset):
    """Pillow images with a transform, as torchvision's data sets give them."""

    def __init__(self, pixels: Tensor, transform: Callable):
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return self.transform(self.pictures[index])


def ours(
    pixels: Tensor, size: int, batch_size: int, device: str, workers: int, *, compiled: bool = False
) -> Callable[[], int]:
    """Two views of every image by ``Batches``, as training asks for them."""
    images = Images(pixels, None, None, "tiles", "train", (0.5,) * 3, (0.25,) * 3).to(device)
    batches = Batches(images, [Augment(size, **SIMCLR, compiled=compiled)] * 2, seed=0, batch_size=batch_size)
    step = 0

    def epoch() -> int:
        nonlocal step
        for _ in range(batches.steps_per_epoch):
            batches.batch(step)
            step += 1
        return batches.steps_per_epoch * batch_size * 2

    return epoch


def ours_compiled(pixels: Tensor, size: int, batch_size: int, device: str, workers: int) -> Callable[[], int]:
    """The same with ``train.compile: true``."""
    return ours(pixels, size, batch_size, device, workers, compiled=True)


def lightly(pixels: Tensor, size: int, batch_size: int, device: str, workers: int) -> Callable[[], int]:
    """lightly's SimCLRTransform through a DataLoader."""
    transform = SimCLRTransform(input_size=size, cj_strength=0.5, gaussian_blur=0.0, normalize=None)
    return loader(Pictures(pixels, transform), batch_size, device, workers)


def torchvision(pixels: Tensor, size: int, batch_size: int, device: str, workers: int) -> Callable[[], int]:
    """torchvision's v2 transforms on one tensor image at a time, through a DataLoader."""
    view = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(size, SIMCLR["crop_scale"], antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(**STRENGTHS)], SIMCLR["color_jitter"]),
            v2.RandomGrayscale(SIMCLR["grayscale"]),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return loader(Pictures(pixels, lambda image: (view(image), view(image))), batch_size, device, workers)


def kornia(pixels: Tensor, size: int, batch_size: int, device: str, workers: int) -> Callable[[], int]:
    """kornia's batched augmentations with a set of parameters per image."""
    from kornia.augmentation import (
        AugmentationSequential,
        ColorJitter,
        RandomGrayscale,
        RandomHorizontalFlip,
        RandomResizedCrop,
    )

    view = AugmentationSequential(
        RandomResizedCrop((size, size), SIMCLR["crop_scale"]),
        RandomHorizontalFlip(),
        ColorJitter(*STRENGTHS.values(), p=SIMCLR["color_jitter"]),
        RandomGrayscale(p=SIMCLR["grayscale"]),
        data_keys=["input"],
    )
    images = pixels.to(device)

    def epoch() -> int:
        for batch in images[torch.randperm(len(images), device=device)].split(batch_size):
            batch = batch / 255
            view(batch), view(batch)
        return len(images) * 2

    return epoch


def loader(pictures: Pictures, batch_size: int, device: str, workers: int) -> Callable[[], int]:
    """An epoch of a DataLoader, two views per image, moved to the device."""
    batches = DataLoader(
        pictures,
        batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=device == "cuda",
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers else None,
    )

    def epoch() -> int:
        made = 0
        for batch in batches:
            first, second = batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)
            made += len(first) + len(second)
        return made

    return epoch


def views_per_second(epoch: Callable[[], int], device: str) -> float:
    """Of one epoch."""
    start = time.perf_counter()
    made = epoch()
    if device == "cuda":
        torch.cuda.synchronize()
    return made / (time.perf_counter() - start)


def main() -> None:
    """Measure, print a table, write it as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments.add_argument("--workers", type=int, default=0, help="of the peers' DataLoaders")
    arguments.add_argument("--batch-size", type=int, default=512)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[32, 96])
    options = arguments.parse_args()

    if options.device == "cpu":
        keep_freed_memory()
    candidates = [ours, ours_compiled, lightly, torchvision] + ([kornia] if find_spec("kornia") else [])
    results = []
    for size in options.sizes:
        pixels = tiles(size)
        given = pixels, size, options.batch_size, options.device, options.workers
        memory = {c.__name__: recording.extra_memory_alone(c, *given, device=options.device) for c in candidates}
        epochs = {c.__name__: partial(views_per_second, c(*given), options.device) for c in candidates}
        first, rates = recording.turn_about(epochs, options.rounds)
        print(f"\n{size} px, {options.device}, batch {options.batch_size}, {torch.get_num_threads()} thread(s)")
        for name, values in rates.items():
            row = dict(size=size, candidate=name, views_per_second=median(values))
            for own in ("ours", "ours_compiled"):  # round by round, since a shared machine is faster in some
                row[f"{own}_is_faster"] = median(mine / one for mine, one in zip(rates[own], values, strict=True))
            row |= dict(lowest=min(values), highest=max(values), extra_memory_mib=memory[name])
            row |= dict(first_round_seconds=COUNT * 2 / first[name])
            results.append(row)
            print(
                f"  {name:13s} {median(values):10,.0f} views/s   ours is {row['ours_is_faster']:5.1f}x, compiled "
                f"{row['ours_compiled_is_faster']:5.1f}x   {memory[name]:6.0f} MiB   "
                f"({min(values):,.0f} to {max(values):,.0f}; first round "
                f"{row['first_round_seconds']:.1f} s)"
            )

    recording.write("data", options, results=results)


if __name__ == "__main__":
    main()
