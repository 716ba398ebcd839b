"""STL-10 (Coates, Ng and Lee, AISTATS 2011), as torchvision unpacks it."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torchvision.datasets import STL10

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.torchvision_files import load_checked

SPLITS = ("train", "test", "unlabeled", "train+unlabeled")


def load_stl10(root: Path, split: str, download: bool) -> Images:
    """The 96 x 96 images of one of :data:`SPLITS`, from ``root / stl10_binary``; ``train`` has its ten folds.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_checked`.
    """
    folder = root / STL10.base_folder
    data = load_checked(
        partial(STL10, root, split, download=download),
        name="stl10",
        folder=folder,
        checksums=dict(STL10.train_list + STL10.test_list),
        download=download,
    )
    labeled = "unlabeled" not in split
    return Images(
        pixels=torch.from_numpy(np.ascontiguousarray(data.data)),
        labels=torch.from_numpy(data.labels).long() if labeled else None,
        classes=10 if labeled else None,
        name="stl10",
        split=split,
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
        folds=_folds(folder / STL10.folds_list_file) if split == "train" else None,
    )


def _folds(path: Path) -> tuple[Int64[Tensor, " _"], ...]:
    """The rows of each predefined fold. The published protocol: train on each thousand, test, and take the mean."""
    if not path.is_file():
        raise FileNotFoundError(f"stl10 lacks {path.name} in {path.parent}: put the file there.")
    return tuple(torch.tensor([int(row) for row in line.split()]) for line in path.read_text().splitlines() if line)
