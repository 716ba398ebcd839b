"""Images per second from a folder of JPEGs, beside torchvision's ImageFolder and DataLoader with the same workers.

    python benchmarks/folder.py                                     # 2 workers, 500 x 375 JPEGs to 224 px
    python benchmarks/folder.py --workers 8 --size 64
    python benchmarks/folder.py --listing --images 10000            # how long files take to list and to fingerprint

JPEGs are tiles of scikit-learn's two photographs, written to a temporary folder. All candidates bring the same files to
the same canvas as uint8, turn about, and the median of the rounds counts:

    decoding alone      Pillow and the resize, on one core, no worker
    streamed            what training reads when images do not fit: batches of a run, in its order
    ImageFolder         Resize, CenterCrop, PILToTensor on Pillow images, in a shuffled DataLoader

Workers are started before the clock.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ssl_transfer.data import Batches, load_images
from ssl_transfer.data.sources.decode import decode

WARM_UP = 2  # batches


def write_jpegs(root: Path, count: int, width: int, height: int) -> None:
    """``count`` overlapping windows of two photographs, enlarged or shrunk to ``width`` x ``height``, quality 90."""
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(count):
        photograph = photographs[number % 2]
        left, top = number * 7 % 140, number * 5 % 107
        window = photograph.crop((left, top, left + 500, top + 320)).resize((width, height))
        path = root / "train" / f"class{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        window.save(path, quality=90)


def alone(root: Path, size: int) -> Callable[[int], None]:
    """Decode file by file in this process."""
    files = sorted(root.rglob("*.jpg"))

    def run(images: int) -> None:
        for number in range(images):
            decode(files[number % len(files)].read_bytes(), size)

    return run


def streamed(root: Path, size: int, batch_size: int, workers: int) -> tuple[Callable[[int], None], Callable[[], None]]:
    """The pixels of a run's batches."""
    images = load_images(
        "folder", root, split="train", download=False, image_size=size, resident=False, workers=workers
    )
    batches = Batches(images, [], seed=0, batch_size=batch_size)
    step = 0

    def run(count: int) -> None:
        nonlocal step
        for _ in range(count // batch_size):
            batches.batch(step)
            step += 1

    return run, batches.close


def image_folder(root: Path, size: int, batch_size: int, workers: int) -> Callable[[int], None]:
    """torchvision's own classes, as its reference scripts put them together."""
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    loader = DataLoader(
        ImageFolder(str(root / "train"), transform),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
    )

    def endless():
        while True:
            yield from loader

    batches = endless()

    def run(count: int) -> None:
        for _ in range(count // batch_size):
            next(batches)

    return run


def listing(root: Path, rounds: int) -> dict[str, float]:
    """Seconds to list the files and to read what their fingerprint is made of, from the page cache; medians."""
    seconds: dict[str, list[float]] = {"listed": [], "fingerprint": []}
    found = set()
    for _ in range(rounds):
        start = time.perf_counter()
        images = load_images("folder", root, split="train", image_size=1, decode=False)
        seconds["listed"].append(time.perf_counter() - start)
        start = time.perf_counter()
        found.add(images.fingerprint)
        seconds["fingerprint"].append(time.perf_counter() - start)
    assert len(found) == 1
    return {name: round(median(values), 3) for name, values in seconds.items()}


def main() -> None:
    """Measure and print a table; with ``--json`` also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--listing", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_jpegs(root, given.images, given.width, given.height)
        if given.listing:
            print(f"{given.images} JPEGs, seconds, median of {given.rounds} rounds: {listing(root, given.rounds)}")
            return
        ours, close = streamed(root, given.size, given.batch_size, given.workers)
        candidates = {
            "decoding alone": alone(root, given.size),
            "streamed": ours,
            "ImageFolder": image_folder(root, given.size, given.batch_size, given.workers),
        }
        rates: dict[str, list[float]] = {name: [] for name in candidates}
        for run in candidates.values():
            run(WARM_UP * given.batch_size)
        for _ in range(given.rounds):
            for name, run in candidates.items():
                # What was prefetched while another candidate ran is no work of this round.
                run(given.images // 2 if name != "decoding alone" else 0)
                start = time.perf_counter()
                run(given.images)
                rates[name].append(given.images / (time.perf_counter() - start))
        close()
    found = {name: round(median(values), 1) for name, values in rates.items()}
    what = f"{given.width} x {given.height} JPEGs to {given.size} px, {given.workers} workers, {platform.machine()}"
    print(f"images/s, median of {given.rounds} rounds: {what}")
    for name, rate in found.items():
        print(f"{name:16} {rate:8.1f}   {rate / found['ImageFolder']:.2f} x ImageFolder")
    if given.json is not None:
        given.json.write_text(json.dumps({"what": what, **vars(given) | {"json": None}, "rates": found}, default=str))


if __name__ == "__main__":
    main()
