import numpy as np
import pytest
from torchvision.datasets import STL10

from ssl_transfer.data import load_images
from tests.fake_stl10 import fake_stl10


@pytest.fixture
def small_stl10(tmp_path, monkeypatch):
    """Twenty labeled, thirty unlabeled and ten test images in STL-10's layout, each of one value, its number."""
    counts = dict(train=20, unlabeled=30, test=10)
    pixels = {
        part: np.repeat(np.arange(n, dtype=np.uint8), 3 * 96 * 96).reshape(n, 3, 96, 96) for part, n in counts.items()
    }
    pixels["test"][0, 0, 1, 0] = 77
    labels = {part: np.arange(counts[part]) % 10 for part in ("train", "test")}
    return fake_stl10(tmp_path, monkeypatch, pixels, labels, [(fold, fold + 10) for fold in range(10)])


@pytest.mark.parametrize("split, count", [("train", 20), ("test", 10), ("unlabeled", 30), ("train+unlabeled", 50)])
def test_stl10_has_its_splits(small_stl10, split, count):
    images = load_images("stl10", small_stl10, split=split, download=False)
    assert images.pixels.shape == (count, 3, 96, 96)
    if "unlabeled" in split:
        assert images.labels is None and images.classes is None
    else:
        assert images.labels.tolist() == [number % 10 for number in range(count)] and images.classes == 10
    if split == "test":
        assert images.pixels[0, 0, 1, 0] == 77


def test_stl10_has_its_ten_folds_of_the_labeled_training_images(small_stl10):
    images = load_images("stl10", small_stl10, split="train", download=False)
    assert [fold.tolist() for fold in images.folds] == [[number, number + 10] for number in range(10)]
    assert images.subset(images.folds[3]).pixels[:, 0, 5, 5].tolist() == [3, 13]
    assert load_images("stl10", small_stl10, split="train+unlabeled", download=False).folds is None


def test_stl10_without_its_folds_names_the_file(small_stl10):
    (small_stl10 / STL10.base_folder / "fold_indices.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"stl10 lacks fold_indices\.txt in "):
        load_images("stl10", small_stl10, split="train", download=False)


def test_stl10_without_its_files_names_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"stl10 lacks train_X.bin, .*stl10_binary"):
        load_images("stl10", tmp_path, split="unlabeled", download=False)
