import os
import pickle
import warnings
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, STL10

from ssl_transfer.data.sources.datasets import load_images
from tests.fake_stl10 import fake_stl10

REAL = os.environ.get("SSL_TRANSFER_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="SSL_TRANSFER_DATA names no folder with CIFAR")


def test_digits_are_split_without_overlap_into_all_of_scikit_learns():
    train, test = (load_images("digits", Path(), split=split, download=False) for split in ("train", "test"))
    together = torch.cat((train.pixels, test.pixels)).flatten(1)
    published = torch.from_numpy((load_digits().data * 255 / 16).round().astype(np.uint8))
    assert sorted(together.tolist()) == sorted(published.tolist())
    assert (train.pixels.shape[1:], train.classes, len(train) + len(test)) == ((1, 8, 8), 10, 1797)
    for label in range(10):
        of_class = [int((images.labels == label).sum()) for images in (train, test)]
        assert of_class[1] == sum(of_class) // 5


def test_digits_keep_their_labels():
    test, data = load_images("digits", Path(), split="test", download=False), load_digits()
    by_image = {tuple(row): label for row, label in zip(data.data.astype(int).tolist(), data.target, strict=True)}
    back = (test.pixels.flatten(1).double() * 16 / 255).round().long()
    assert [by_image[tuple(row)] for row in back.tolist()] == test.labels.tolist()


def test_statistics_of_digits_are_those_of_the_training_split():
    train = load_images("digits", Path(), split="train", download=False)
    values = train.pixels.double() / 255
    assert abs(values.mean() - train.mean[0]) < 1e-3 and abs(values.std() - train.std[0]) < 1e-3


@needs_real_data
@pytest.mark.parametrize("name, dataset, classes", [("cifar10", CIFAR10, 10), ("cifar100", CIFAR100, 100)])
def test_cifar_equals_torchvisions(name, dataset, classes):
    images = load_images(name, Path(REAL), split="test", download=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        theirs = dataset(REAL, train=False)
    assert torch.equal(images.pixels.permute(0, 2, 3, 1), torch.from_numpy(theirs.data))
    assert images.labels.tolist() == theirs.targets and images.classes == classes == len(images.labels.unique())


@needs_real_data
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_statistics_of_cifar_are_those_of_the_training_split(name):
    images = load_images(name, Path(REAL), split="train", download=False)
    values = images.pixels.float() / 255
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.tensor(images.mean), atol=1e-3, rtol=0)
    torch.testing.assert_close(values.std((0, 2, 3)), torch.tensor(images.std), atol=1e-3, rtol=0)


def write(folder, files):
    """Write files and return torchvision's form of their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [[name, md5(content).hexdigest()] for name, content in files.items()]


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """Ten images in CIFAR-10's layout, five for training."""
    generator = np.random.default_rng(0)
    parts = {
        name: pickle.dumps({"data": generator.integers(0, 256, (5, 3072), np.uint8), "labels": [0, 1, 2, 3, 4]})
        for name in ("data_batch_1", "test_batch")
    }
    folder = tmp_path / CIFAR10.base_folder
    train, test = write(folder, parts)
    (meta,) = write(folder, {"batches.meta": pickle.dumps({"label_names": list("abcde")})})
    monkeypatch.setattr(CIFAR10, "train_list", [train])
    monkeypatch.setattr(CIFAR10, "test_list", [test])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return tmp_path


def test_cifar_is_read_from_the_published_layout(small_cifar10):
    images = load_images("cifar10", small_cifar10, split="train", download=False)
    assert images.pixels.shape == (5, 3, 32, 32) and images.labels.tolist() == [0, 1, 2, 3, 4]


def test_a_missing_file_is_named_with_its_folder(small_cifar10):
    folder = small_cifar10 / CIFAR10.base_folder
    (folder / "data_batch_1").unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks data_batch_1 in {folder}, and downloading is off") as error:
        load_images("cifar10", small_cifar10, split="train", download=False)
    assert str(error.value).count("\n") == 0


def test_a_download_that_fails_says_why(small_cifar10, monkeypatch):
    def offline(self):
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", offline)
    (small_cifar10 / CIFAR10.base_folder / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks test_batch .*could not be downloaded \(no route to host\)"):
        load_images("cifar10", small_cifar10, split="train", download=True)


@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_a_truncated_file_is_named(small_cifar10, file):
    path = small_cifar10 / CIFAR10.base_folder / file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=rf"damaged files .*\({file}: wrong checksum\)"):
        load_images("cifar10", small_cifar10, split="train", download=False)


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


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean cifar100"):
        load_images("cifar-100", Path(), split="train", download=False)


def test_an_unknown_split_gets_the_list():
    with pytest.raises(ValueError, match="no split val: choose one of train, test"):
        load_images("digits", Path(), split="val", download=False)


def test_a_fingerprint_tells_pixels_labels_and_order_apart():
    images = load_images("digits", Path(), split="test", download=False)
    again = load_images("digits", Path(), split="test", download=False)
    assert images.fingerprint == again.fingerprint and len(images.fingerprint) == 16
    other_order = images.subset(torch.arange(len(images)).flip(0))
    relabeled = images.subset(torch.arange(len(images)))
    relabeled.labels[0] += 1
    prints = {images.fingerprint, other_order.fingerprint, relabeled.fingerprint}
    assert len(prints) == 3


def test_a_subset_keeps_pixels_and_labels_together():
    images = load_images("digits", Path(), split="test", download=False)
    some = images.subset(torch.tensor([5, 2]))
    assert torch.equal(some.pixels[1], images.pixels[2]) and some.labels.tolist() == images.labels[[5, 2]].tolist()
