"""A suite's linear numbers beside scikit-learn's on the same features, and what a suite costs.

    python benchmarks/suite.py peer runs/student --on cifar10,cifar100 --teacher timm:resnet18 --images 2000

takes the arguments of ``ssl-transfer suite``, runs it, or reads what it kept, and fits scikit-learn's
LogisticRegression at the penalty that was chosen.

    OMP_NUM_THREADS=1 python benchmarks/suite.py cost

prints seconds of processor time for 10,000 images: features by three backbones, at their input size, from pixels in
memory, and the linear probe on their features.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from ssl_transfer.models.backbones import create_backbone
from ssl_transfer.probes import extract_features, transfer_probe
from ssl_transfer.suite.asked import Asked, asked_for
from ssl_transfer.suite.models import open_subjects
from ssl_transfer.suite.run import run_suite
from ssl_transfer.suite.scoring import features
from ssl_transfer.suite.sets import open_set

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONES = (("cifar_resnet8", 32), ("efficientnet_lite0", 224), ("resnet18", 224))


def peer(asked: Asked) -> None:
    """Print a line for each model and data set."""
    results = run_suite(asked)
    print("\n| data set | metric | model | ours | scikit-learn |\n|---|---|---|---:|---:|")
    subjects = {
        subject.name: subject for subject in open_subjects(asked.models, asked.teacher, baselines=asked.baselines)
    }
    for name in asked_for(asked.on):
        if name in results.missing:
            continue
        opened = open_set(name, asked.root, limit=asked.images)
        for score in results.scores:
            if score.protocol["set"] != name or score.metric != "linear" or opened.presence is not None:
                continue
            model = subjects[score.model].model
            pixels = opened.train.pixels
            channels = pixels.shape[1] if model is None else len(model.backbone.mean)
            size = pixels.shape[-1] if model is None else model.backbone.input_size
            seen = opened.seen_by(channels, size, 0, torch.device("cpu"))
            table = features(subjects[score.model], seen, asked.folder / "features").features
            theirs = LogisticRegression(C=1 / score.protocol["penalty"], max_iter=10_000, tol=1e-6)
            theirs.fit(table.train_x.double().numpy(), table.train_y.numpy())
            predicted = theirs.predict(table.test_x.double().numpy())
            right = np.mean(predicted == table.test_y.numpy())
            value = right if opened.measure == "top-1" else balanced_accuracy_score(table.test_y, predicted)
            print(
                f"| {name} | {opened.measure} | {score.model} | {100 * score.value:.2f} | {100 * value:.2f} |",
                flush=True,
            )


def cost(images: int, classes: int) -> None:
    """Print a line for each backbone; features of a part of the images, the probe on all rows."""
    print("| backbone | input | width | features | linear probe |\n|---|---:|---:|---:|---:|")
    for name, size in BACKBONES:
        network = (
            create_backbone(name, image_size=size, mean=MEAN, std=STD).eval().to(memory_format=torch.channels_last)
        )
        pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8)
        extract_features(network, pixels[:8])
        start = time.process_time()
        extract_features(network, pixels, batch_size=64)
        taken = (time.process_time() - start) * 10_000 / images
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(10_000) % classes
        centers = torch.randn(classes, network.num_features, generator=generator)
        x = (0.3 * centers[labels] + torch.randn(10_000, network.num_features, generator=generator)).relu()
        start = time.process_time()
        transfer_probe(x[:9000], labels[:9000], x[9000:], labels[9000:])
        probe = time.process_time() - start
        print(f"| {name} | {size} px | {network.num_features} | {taken:.0f} s | {probe:.0f} s |", flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    beside = commands.add_parser("peer")
    beside.add_argument("models", nargs="+")
    beside.add_argument("--on", nargs="+", required=True)
    beside.add_argument("--teacher")
    beside.add_argument("--root", type=Path, default=Path("data"))
    beside.add_argument("--out", type=Path)
    beside.add_argument("--images", type=int)
    costs = commands.add_parser("cost")
    costs.add_argument("--images", type=int, default=256)
    costs.add_argument("--classes", type=int, default=100)
    given = parser.parse_args()
    if given.command == "cost":
        cost(given.images, given.classes)
        return
    peer(Asked(tuple(given.models), tuple(given.on), given.teacher, given.root, given.out, images=given.images))


if __name__ == "__main__":
    main()
