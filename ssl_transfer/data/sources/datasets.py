"""Data sets by name."""

import difflib
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100, STL10
from torchvision.datasets.utils import check_integrity

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.fine_grained import PUBLISHED, find_fine_grained
from ssl_transfer.data.sources.folder import find_folder
from ssl_transfer.data.sources.hugging_face import find_saved
from ssl_transfer.data.sources.materialize import materialize
from ssl_transfer.data.sources.shards import find_shards

Loader = Callable[[Path, str, bool], Images]  # (root, split, download)

DECODED = ("folder", "hf", "webdataset", *PUBLISHED)  # files of any size; the others come as arrays


def load_images(
    dataset: str,
    root: Path,
    *,
    split: str,
    download: bool,
    image_size: int | None = None,
    on_error: str = "raise",
    resident: Literal["auto", True, False] = "auto",
    workers: int = 0,
    memory: Path | None = None,
    train_classes: int | None = None,
    decode: bool = True,
) -> Images:
    """The images of one split of a data set, from the files under ``root`` (``digits`` needs none).

    What is not published as arrays (:data:`DECODED`) needs ``image_size``; ``on_error``, ``resident``, ``workers``,
    ``memory`` and ``decode`` are those of :func:`ssl_transfer.data.sources.materialize.materialize`. With
    ``train_classes`` a folder's classes are split as :func:`ssl_transfer.data.sources.fine_grained.find_fine_grained`
    does. Every data set has the splits train and test; ``stl10`` has unlabeled and train+unlabeled too, and its ten
    predefined folds (``folds`` of the split train); ``folder``, ``hf`` and ``webdataset`` have what their files give.
    """
    if dataset in DECODED:
        if image_size is None:
            raise ValueError(f"dataset {dataset} needs image_size, the side in pixels to which its images are brought.")
        images = materialize(
            _find(dataset, Path(root), split, train_classes),
            image_size=image_size,
            on_error=on_error,
            resident=resident,
            workers=workers,
            memory=memory,
            decode=decode,
        )
        return _tell_queries(images, Path(root)) if (dataset, split) == ("in_shop", "test") else images
    if dataset not in _LOADERS:
        known = [*_LOADERS, *DECODED]
        close = difflib.get_close_matches(dataset, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
        raise ValueError(f"dataset {dataset} is unknown: {hint}")
    splits, load = _LOADERS[dataset]
    if split not in splits:
        raise ValueError(f"dataset {dataset} has no split {split}: choose one of {', '.join(splits)}.")
    return load(Path(root), split, download)


def _find(dataset: str, root: Path, split: str, train_classes: int | None) -> EncodedImages:
    if dataset in PUBLISHED or train_classes is not None:
        return find_fine_grained(dataset, root, split, train_classes=train_classes)
    return {"folder": find_folder, "hf": find_saved, "webdataset": find_shards}[dataset](root, split)


def _tell_queries(images: Images, root: Path) -> Images:
    queries, gallery = (len(find_fine_grained("in_shop", root, part)) for part in ("query", "gallery"))
    if len(images) != queries + gallery:
        raise ValueError("in_shop cannot tell its queries from its gallery without all images: set on_error to raise.")
    return replace(images, queries=queries)


def _digits(root: Path, split: str, download: bool) -> Images:
    """The 1,797 digits of scikit-learn, 8 x 8 with 17 gray levels; every fifth image of each class is for testing."""
    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    place_in_class = torch.nn.functional.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]
    rows = (place_in_class % 5 == 0) == (split == "test")
    pixels = torch.from_numpy((data.images * 255 / 16).round().astype(np.uint8))[:, None]
    return Images(
        pixels=pixels[rows],
        labels=labels[rows],
        classes=10,
        name="digits",
        split=split,
        mean=(0.3052,),
        std=(0.3760,),
    )


def _cifar(dataset: type[CIFAR10], name: str, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Loader:
    def load(root: Path, split: str, download: bool) -> Images:
        files = dict(dataset.train_list + dataset.test_list) | {dataset.meta["filename"]: dataset.meta["md5"]}
        folder = root / dataset.base_folder

        def loader() -> CIFAR10:
            return dataset(root, train=split == "train", download=download)

        data = _load(loader, name, folder, files, download)
        pixels = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        return Images(pixels, torch.tensor(data.targets), classes, name, split, mean, std)

    return load


def _stl10(root: Path, split: str, download: bool) -> Images:
    files = dict(STL10.train_list + STL10.test_list)
    folder = root / STL10.base_folder
    data = _load(partial(STL10, root, split, download=download), "stl10", folder, files, download)
    labeled = "unlabeled" not in split
    return Images(
        pixels=torch.from_numpy(np.ascontiguousarray(data.data)),
        labels=torch.from_numpy(data.labels).long() if labeled else None,
        classes=10 if labeled else None,
        name="stl10",
        split=split,
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
        folds=_stl10_folds(folder / STL10.folds_list_file) if split == "train" else None,
    )


def _stl10_folds(path: Path) -> tuple[Int64[Tensor, " _"], ...]:
    """The rows of each predefined fold. The published protocol: train on each thousand, test, and take the mean."""
    if not path.is_file():
        raise FileNotFoundError(f"stl10 lacks {path.name} in {path.parent}: put the file there.")
    return tuple(torch.tensor([int(row) for row in line.split()]) for line in path.read_text().splitlines() if line)


def _load(loader: Callable[[], Any], name: str, folder: Path, files: dict[str, str], download: bool) -> Any:
    """Let torchvision load and check its files; where it cannot, say which file is at fault."""
    try:
        with warnings.catch_warnings():
            # the published pickles hold a dtype flag as 0 instead of False, which new numpy versions remark
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            return loader()
    except (OSError, RuntimeError) as error:
        missing = [file for file in files if not (folder / file).is_file()]
        damaged = [file for file in files if file not in missing and not check_integrity(folder / file, files[file])]
        if missing:
            why = f"and could not be downloaded ({error})" if download else "and downloading is off"
            raise FileNotFoundError(
                f"{name} lacks {', '.join(missing)} in {folder}, {why}: put the files there or point root elsewhere."
            ) from error
        if damaged:
            raise ValueError(
                f"{name} has damaged files in {folder} ({', '.join(damaged)}: wrong checksum): "
                "delete them and get them again."
            ) from error
        raise


_LOADERS: dict[str, tuple[tuple[str, ...], Loader]] = {
    "digits": (("train", "test"), _digits),
    "cifar10": (
        ("train", "test"),
        _cifar(CIFAR10, "cifar10", 10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    ),
    "cifar100": (
        ("train", "test"),
        _cifar(CIFAR100, "cifar100", 100, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    ),
    "stl10": (("train", "test", "unlabeled", "train+unlabeled"), _stl10),
}
