import os
import pickle
import warnings
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from ssl_transfer.data import load_images


def real_data(dataset) -> Path:
    """The folder that SSL_TRANSFER_DATA names, if the published files of this data set are in it."""
    root = Path(os.environ.get("SSL_TRANSFER_DATA", ""))
    if "SSL_TRANSFER_DATA" not in os.environ or not (root / dataset.base_folder).is_dir():
        name = dataset.__name__
        pytest.skip(
            f"needs {dataset.base_folder}/ in the folder that SSL_TRANSFER_DATA names; to get it: "
            f"torchvision.datasets.{name}(FOLDER, download=True)"
        )
    return root


@pytest.mark.parametrize("name, dataset, classes", [("cifar10", CIFAR10, 10), ("cifar100", CIFAR100, 100)])
def test_cifar_equals_torchvisions(name, dataset, classes):
    root = real_data(dataset)
    images = load_images(name, root, split="test", download=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        theirs = dataset(root, train=False)
    assert torch.equal(images.pixels.permute(0, 2, 3, 1), torch.from_numpy(theirs.data))
    assert images.labels.tolist() == theirs.targets and images.classes == classes == len(images.labels.unique())


@pytest.mark.parametrize("name, dataset", [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_statistics_of_cifar_are_those_of_the_training_split(name, dataset):
    images = load_images(name, real_data(dataset), split="train", download=False)
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
