"""Data sets by name."""

import difflib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.benchmarks import LAYOUTS, SAVED, find_benchmark
from ssl_transfer.data.sources.cifar import load_cifar10, load_cifar100
from ssl_transfer.data.sources.digits import load_digits
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.fine_grained import PUBLISHED, find_fine_grained
from ssl_transfer.data.sources.folder import find_folder
from ssl_transfer.data.sources.hugging_face import find_saved
from ssl_transfer.data.sources.materialize import Decoding, list_only, materialize
from ssl_transfer.data.sources.shards import find_shards
from ssl_transfer.data.sources.stl10 import SPLITS, load_stl10
from ssl_transfer.data.sources.svhn import load_svhn
from ssl_transfer.files import is_address

log = logging.getLogger(__name__)

_BENCHMARKS = tuple(dict.fromkeys((*LAYOUTS, *SAVED)))
_ENCODED = ("folder", "hf", "webdataset", *PUBLISHED, *_BENCHMARKS)  # files of any size; the others come as arrays

_CHOICES = {"train_classes": ("folder",), "labels": ("folder", "hf", "webdataset"), "image": ("hf", "webdataset")}

_ARRAYS: dict[str, tuple[tuple[str, ...], Callable[[Path, str, bool], Images]]] = {  # (root, split, download)
    "digits": (("train", "test"), load_digits),
    "cifar10": (("train", "test"), load_cifar10),
    "cifar100": (("train", "test"), load_cifar100),
    "stl10": (SPLITS, load_stl10),
    "svhn": (("train", "test"), load_svhn),
}


def load_images(
    dataset: str,
    root: Path | str,
    *,
    split: str,
    download: bool = False,
    image_size: int | None = None,
    train_classes: int | None = None,
    labels: str = "auto",
    image: str | None = None,
    decode: bool = True,
    **decoding: Any,
) -> Images:
    """The images of one split of a data set, from the files under ``root`` (``digits`` needs none).

    ``folder``, ``hf``, ``webdataset``, ``cub``, ``cars``, ``sop``, ``in_shop`` and most sets of transfer benchmarks
    (:mod:`ssl_transfer.catalog.benchmarks`) are encoded images of any size, which are brought to squares of
    ``image_size`` pixels; the others come as arrays of their own size. Every data set has the splits train and test,
    some benchmarks val; ``stl10`` has unlabeled and train+unlabeled too, and its ten predefined folds (``folds`` of
    the split train); ``folder``, ``hf`` and ``webdataset`` have the splits that lie under ``root``. What was left out
    is said in ``inventory`` of the images, and, but for hidden files, in a warning of the log.

    Keyword arguments:
        download: let torchvision download ``cifar10``, ``cifar100`` and ``stl10`` where they are missing.
        train_classes: of ``folder``: the number of its sorted classes that are the split train; the others are test
            (:func:`ssl_transfer.data.sources.fine_grained.find_fine_grained`).
        labels: what labels are taken from, where that is not clear: ``folders`` of ``folder``, a column of ``hf``;
            ``none`` takes none.
        image: which of several images is meant: a column of ``hf``, the end of a name in ``webdataset``.
        decode: without it, images are only listed: number, labels and fingerprint are known, and pixels are decoded,
            not checked before, when they are asked for.
        **decoding: ``on_error``, ``resident``, ``workers``, ``memory`` and ``unchecked``, which say when images are
            decoded, and what becomes of broken ones (:class:`ssl_transfer.data.sources.materialize.Decoding`).

    Raises:
        FileNotFoundError: files of the data set are missing.
        PermissionError: a folder may not be read.
        ValueError: there is no such data set or split, a choice is missing, or the files cannot be read as what they
            should be.
    """
    if not is_address(root):
        root = Path(root)
    elif dataset != "webdataset":
        raise ValueError(f"root {root} is an address, which is for dataset webdataset, and not for {dataset}.")
    _check_choices(dataset, train_classes=train_classes, labels=None if labels == "auto" else labels, image=image)
    if dataset not in (*_ARRAYS, *_ENCODED):
        known = [*_ARRAYS, *_ENCODED]
        close = difflib.get_close_matches(dataset, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
        raise ValueError(f"dataset {dataset} is unknown: {hint}")
    if dataset in _ARRAYS:
        splits, load = _ARRAYS[dataset]
        if split not in splits:
            raise ValueError(f"dataset {dataset} has no split {split}: choose one of {', '.join(splits)}.")
        return load(Path(root), split, download)
    if image_size is None:
        raise ValueError(f"dataset {dataset} needs image_size, the side in pixels to which its images are brought.")
    how = Decoding(image_size, **decoding)
    try:
        encoded = _find(dataset, root, split, train_classes, labels, image, download, how.memory)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:  # a name that is too long, a disk that does not answer
        raise ValueError(f"the {split} images of {dataset} cannot be listed: {error}") from error
    images = materialize(encoded, how) if decode else list_only(encoded, image_size)
    if decode and encoded.inventory.remarkable:
        log.warning("%s %s: %s", images.name, images.split, encoded.inventory)
    return _tell_queries(images, Path(root)) if (dataset, split) == ("in_shop", "test") else images


def _find(
    dataset: str,
    root: Path | str,
    split: str,
    train_classes: int | None,
    labels: str,
    image: str | None,
    download: bool,
    memory: Path | None,
) -> EncodedImages:
    if dataset == "webdataset":
        index = None if memory is None else memory.with_name("shard-index")
        return find_shards(root, split, labels=labels, image=image, index=index)
    root = Path(root)
    if dataset == "hf":
        return find_saved(root, split, labels=labels, image=image)
    if dataset == "folder" and train_classes is None:
        return find_folder(root, split, labels=labels)
    if dataset in _BENCHMARKS:
        return find_benchmark(dataset, root, split, download=download)
    return find_fine_grained(dataset, root, split, train_classes=train_classes, labels=labels)


def _check_choices(dataset: str, **given: Any) -> None:
    for name, datasets in _CHOICES.items():
        if given[name] is not None and dataset not in datasets:
            raise ValueError(f"{name} {given[name]} is for dataset {', '.join(datasets)}, and not for {dataset}.")


def _tell_queries(images: Images, root: Path) -> Images:
    queries, gallery = (len(find_fine_grained("in_shop", root, part)) for part in ("query", "gallery"))
    if len(images) != queries + gallery:
        raise ValueError("in_shop cannot tell its queries from its gallery without all images: set on_error to raise.")
    return replace(images, queries=queries)
