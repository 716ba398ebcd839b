"""SVHN, the cropped house numbers (Netzer et al., 2011), as torchvision reads them."""

from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import SVHN

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.torchvision_files import load_checked


def load_svhn(root: Path, split: str, download: bool) -> Images:
    """The 73,257 digits for training, or the 26,032 for testing, 32 x 32, from ``root / {split}_32x32.mat``.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_checked`.
    """
    _, name, checksum = SVHN.split_list[split]
    data = load_checked(
        lambda: SVHN(root, split=split, download=download),
        name="svhn",
        folder=root,
        checksums={name: checksum},
        download=download,
    )
    mean, std = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
    pixels = torch.from_numpy(np.ascontiguousarray(data.data))
    return Images(pixels, torch.from_numpy(data.labels), 10, "svhn", split, mean, std)
