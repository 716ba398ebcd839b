"""The data sets of transfer benchmarks in the layouts they are published in.

Which splits there are, and how to get a data set, is said by :mod:`ssl_transfer.catalog.benchmarks`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torchvision import datasets as published

from ssl_transfer.catalog.benchmarks import BENCHMARKS
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.fine_grained import cars_entries, published_rows
from ssl_transfer.data.sources.hugging_face import find_saved
from ssl_transfer.data.sources.listing import list_files
from ssl_transfer.data.sources.torchvision_files import downloaded
from ssl_transfer.data.subset import class_places

Entry = tuple[Path, int]

CALTECH_TRAIN = 30  # images of each class that are trained on
VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
    "sheep sofa train tvmonitor".split()
)


def find_benchmark(name: str, root: Path, split: str, *, download: bool = False) -> EncodedImages:
    """The images of a split of one of the data sets of :data:`LAYOUTS`, below ``root``.

    Every data set has the splits ``train`` and ``test``, some ``val``. With ``download`` torchvision fetches what is
    missing, where it can. VOC2007 comes without labels here, since its images have several: :func:`voc_presence`.

    Raises:
        FileNotFoundError: the data set, one of its lists or an image that they name is missing; says how to get it.
        ValueError: there is no such split, or a list cannot be read.
    """
    known = BENCHMARKS[name]
    if split not in known.splits:
        raise ValueError(f"dataset {name} has no split {split}: choose one of {', '.join(known.splits)}.")
    if name in SAVED and (saved := _saved(root / name, split)) is not None:
        return saved
    if name not in LAYOUTS:
        raise FileNotFoundError(f"there is no {name} in {root / name}: {known.get}.")
    try:
        entries = LAYOUTS[name](root, split, download)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no whole {name} below {root} ({error}): {known.get}.") from error
    missing = [path for path, _ in entries if not path.is_file()]
    if missing or not entries:
        what = f"{len(missing)} of its {len(entries)} {split} images are missing, the first is {missing[:1]}"
        raise FileNotFoundError(f"there is no whole {name} below {root} ({what}): {known.get}.")
    labels = None if name == "voc2007" else [label for _, label in entries]
    paths = [str(path.relative_to(root)) for path, _ in entries]
    return EncodedImages.of_files(paths, labels, root=root, name=name, split=split)


def voc_presence(root: Path, split: str) -> Int64[Tensor, "n 20"]:
    """For each image of VOC2007 and each class 1 where it is there, -1 where not, 0 where only as a difficult object.

    Raises:
        FileNotFoundError: a list is missing.
        ValueError: a list does not name the images of the split in their order.
    """
    columns = []
    images = _voc_images(root, split)
    for name in VOC_CLASSES:
        path = _voc_lists(root) / f"{name}_{split}.txt"
        rows = list(published_rows(path, columns=2))
        if [image for image, _ in rows] != images:
            raise ValueError(f"{path} does not name the images of {split}.txt in their order: get the lists again.")
        columns.append([int(value) for _, value in rows])
    return torch.tensor(columns).T.contiguous()


def _listed_by_torchvision(dataset: Callable[..., Any], splits: dict[str, str]) -> "Layout":
    """The files and labels that torchvision lists; it keeps them under these names."""

    def entries(root: Path, split: str, download: bool) -> list[Entry]:
        listed = downloaded(lambda: dataset(root, split=splits[split], download=download))
        if hasattr(listed, "_samples"):
            return [(Path(path), label) for path, label in listed._samples]
        files = listed._images if hasattr(listed, "_images") else listed._image_files
        return [(Path(path), label) for path, label in zip(files, listed._labels, strict=True)]

    return entries


def _eurosat(root: Path, split: str, download: bool) -> list[Entry]:
    """No split is published: a fifth of each class is for testing, the same one for ever."""
    listed = downloaded(lambda: published.EuroSAT(root, download=download))
    entries = sorted((Path(path), label) for path, label in listed.samples)
    return _drawn(entries, split, lambda size: size - size // 5)


def _caltech101(root: Path, split: str, download: bool) -> list[Entry]:
    """Thirty images of each of the 102 categories, the background being one, are for training; no split is published.

    torchvision leaves the background out.
    """
    if download:
        downloaded(lambda: published.Caltech101(root, download=True))
    top = root / "caltech101" / "101_ObjectCategories"
    if not top.is_dir():
        raise FileNotFoundError(f"there is no folder {top}")
    files, _ = list_files(top)
    classes = sorted({Path(file).parts[0] for file in files})
    entries = [(top / file, classes.index(Path(file).parts[0])) for file in files]
    return _drawn(entries, split, lambda size: CALTECH_TRAIN)


def _drawn(entries: Sequence[Entry], split: str, train: Callable[[int], int]) -> list[Entry]:
    """The part of each class that a fixed draw gives to ``split``; of a class of that size ``train(size)`` images."""
    place, size = class_places(torch.tensor([label for _, label in entries]))
    trained = place < torch.tensor([train(own) for own in size.tolist()])
    return [entry for entry, own in zip(entries, trained.tolist(), strict=True) if own == (split == "train")]


def _sun397(root: Path, split: str, download: bool) -> list[Entry]:
    """The first of the ten published partitions, 50 images of each class for training and 50 for testing."""
    if download:
        downloaded(lambda: published.SUN397(root, download=True))
    top = root / "SUN397"
    name = {"train": "Training_01.txt", "test": "Testing_01.txt"}[split]
    listing = next((path for path in (top / name, root / name, root / "Partitions" / name) if path.is_file()), None)
    classes = [line.strip() for line in (top / "ClassName.txt").read_text().splitlines() if line.strip()]
    if listing is None:
        raise FileNotFoundError(f"there is no {name} in {top}")
    number = {name: place for place, name in enumerate(classes)}
    paths = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
    return [(top / path.lstrip("/"), number[path.rpartition("/")[0]]) for path in paths]


def _voc_lists(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"


def _voc_images(root: Path, split: str) -> list[str]:
    return (_voc_lists(root) / f"{split}.txt").read_text().split()


def _voc2007(root: Path, split: str, download: bool) -> list[Entry]:
    if download and not (_voc_lists(root) / f"{split}.txt").is_file():
        downloaded(lambda: published.VOCDetection(root, year="2007", image_set=split, download=True))
    folder = root / "VOCdevkit" / "VOC2007" / "JPEGImages"
    return [(folder / f"{image}.jpg", -1) for image in _voc_images(root, split)]


def _cub200(root: Path, split: str, download: bool) -> list[Entry]:
    top = root / "CUB_200_2011"
    lists = ("images", "image_class_labels", "train_test_split")
    images, labels, trained = (dict(published_rows(top / f"{name}.txt", columns=2)) for name in lists)
    if not images.keys() == labels.keys() == trained.keys():
        raise ValueError(
            f"{', '.join(f'{name}.txt' for name in lists)} in {top} are not of the same images: get them again."
        )
    wanted = "1" if split == "train" else "0"
    chosen = [image for image in images if trained[image] == wanted]
    return [(top / "images" / images[image], int(labels[image]) - 1) for image in chosen]


def _stanford_cars(root: Path, split: str, download: bool) -> list[Entry]:
    return [(path, label - 1) for path, label, test in cars_entries(root) if test is (split == "test")]


def _saved(folder: Path, split: str) -> EncodedImages | None:
    """A data set of Hugging Face in ``folder``, None where there is none; ``val`` may be called validation or valid."""
    names = {"val": ("val", "validation", "valid")}.get(split, (split,))
    if not any(folder.rglob("*.parquet")) and not any(folder.rglob("*.arrow")):
        return None
    for name in names:
        try:
            return find_saved(folder, name)
        except FileNotFoundError:
            if name == names[-1]:
                raise
    return None


Layout = Callable[[Path, str, bool], list[Entry]]  # (root, split, download)

_SAME = {"train": "train", "val": "val", "test": "test"}
LAYOUTS: dict[str, Layout] = {
    "aircraft": _listed_by_torchvision(published.FGVCAircraft, _SAME),
    "caltech101": _caltech101,
    "cub200": _cub200,
    "dtd": _listed_by_torchvision(published.DTD, _SAME),
    "eurosat": _eurosat,
    "flowers102": _listed_by_torchvision(published.Flowers102, _SAME),
    "food101": _listed_by_torchvision(published.Food101, _SAME),
    "gtsrb": _listed_by_torchvision(published.GTSRB, _SAME),
    "pets": _listed_by_torchvision(published.OxfordIIITPet, {"train": "trainval", "test": "test"}),
    "stanford_cars": _stanford_cars,
    "sun397": _sun397,
    "voc2007": _voc2007,
}
# Data sets of Hugging Face on disk, in a folder of the data set's name: those that torchvision cannot read or get.
SAVED = ("cub200", "pcam", "resisc45", "stanford_cars")
