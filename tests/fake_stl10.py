"""Small data in STL-10's published layout, which torchvision reads and whose checksums it knows."""

from collections.abc import Mapping, Sequence
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import STL10


def fake_stl10(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    pixels: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    folds: Sequence[Sequence[int]],
) -> Path:
    """Write pixels of train, unlabeled and test (n x 3 x 96 x 96, uint8), labels from 0, and folds below ``root``."""
    folder = root / STL10.base_folder
    folder.mkdir(parents=True, exist_ok=True)
    # The files hold columns and not rows, and labels from 1.
    contents = {f"{part}_X.bin": x.swapaxes(2, 3).tobytes() for part, x in pixels.items()}
    contents |= {f"{part}_y.bin": (y + 1).astype(np.uint8).tobytes() for part, y in labels.items()}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "fold_indices.txt").write_text("\n".join(" ".join(map(str, fold)) for fold in folds))
    for part in ("train_list", "test_list"):
        known = [[name, md5(contents[name]).hexdigest()] for name, _ in getattr(STL10, part)]
        monkeypatch.setattr(STL10, part, known)
    return root
