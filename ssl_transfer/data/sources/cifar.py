"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), as torchvision unpacks them."""

from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.torchvision_files import load_checked

Statistics = tuple[float, float, float]


def load_cifar10(root: Path, split: str, download: bool) -> Images:
    """The 50,000 images of CIFAR-10 for training, or the 10,000 for testing, from ``root / cifar-10-batches-py``.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_checked`.
    """
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _load(CIFAR10, "cifar10", 10, mean, std, root, split, download)


def load_cifar100(root: Path, split: str, download: bool) -> Images:
    """The 50,000 images of CIFAR-100 for training, or the 10,000 for testing, from ``root / cifar-100-python``.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_checked`.
    """
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _load(CIFAR100, "cifar100", 100, mean, std, root, split, download)


def _load(
    dataset: type[CIFAR10],
    name: str,
    classes: int,
    mean: Statistics,
    std: Statistics,
    root: Path,
    split: str,
    download: bool,
) -> Images:
    data = load_checked(
        lambda: dataset(root, train=split == "train", download=download),
        name=name,
        folder=root / dataset.base_folder,
        checksums=dict(dataset.train_list + dataset.test_list) | {dataset.meta["filename"]: dataset.meta["md5"]},
        download=download,
    )
    pixels = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
    return Images(pixels, torch.tensor(data.targets), classes, name, split, mean, std)
