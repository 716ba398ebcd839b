"""Data sets by name."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ssl_transfer.data.images import Images
from ssl_transfer.data.sources.cifar import load_cifar10, load_cifar100
from ssl_transfer.data.sources.digits import load_digits
from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.fine_grained import PUBLISHED, find_fine_grained
from ssl_transfer.data.sources.folder import find_folder
from ssl_transfer.data.sources.hugging_face import find_saved
from ssl_transfer.data.sources.materialize import DECODE, Decoding, materialize
from ssl_transfer.data.sources.shards import find_shards
from ssl_transfer.data.sources.stl10 import SPLITS, load_stl10

_DECODED = ("folder", "hf", "webdataset", *PUBLISHED)  # files of any size; the others come as arrays

_ARRAYS: dict[str, tuple[tuple[str, ...], Callable[[Path, str, bool], Images]]] = {  # (root, split, download)
    "digits": (("train", "test"), load_digits),
    "cifar10": (("train", "test"), load_cifar10),
    "cifar100": (("train", "test"), load_cifar100),
    "stl10": (SPLITS, load_stl10),
}


def load_images(
    dataset: str,
    root: Path | str,
    *,
    split: str,
    download: bool = False,
    image_size: int | None = None,
    train_classes: int | None = None,
    decoding: Decoding | None = DECODE,
) -> Images:
    """The images of one split of a data set, from the files under ``root`` (``digits`` needs none).

    ``folder``, ``hf``, ``webdataset``, ``cub``, ``cars``, ``sop`` and ``in_shop`` are encoded images of any size, which
    are brought to squares of ``image_size`` pixels; the others come as arrays of their own size. Every data set has the
    splits train and test; ``stl10`` has unlabeled and train+unlabeled too, and its ten predefined folds (``folds`` of
    the split train); ``folder``, ``hf`` and ``webdataset`` have the splits that lie under ``root``.

    Keyword arguments:
        download: let torchvision download ``cifar10``, ``cifar100`` and ``stl10`` where they are missing.
        train_classes: of ``folder``: the number of its sorted classes that are the split train; the others are test
            (:func:`ssl_transfer.data.sources.fine_grained.find_fine_grained`).
        decoding: when encoded images are decoded, and what becomes of broken ones. With ``None`` they are only listed:
            number, labels and fingerprint are known, and a pixel is decoded when it is asked for.

    Raises:
        FileNotFoundError: files of the data set are missing.
        ValueError: there is no such data set or split, ``image_size`` is missing, or the files cannot be read as what
            they should be.
    """
    root = Path(root)
    if dataset in _DECODED:
        if image_size is None:
            raise ValueError(f"dataset {dataset} needs image_size, the side in pixels to which its images are brought.")
        images = materialize(_find(dataset, root, split, train_classes), image_size, decoding)
        return _tell_queries(images, root) if (dataset, split) == ("in_shop", "test") else images
    if dataset not in _ARRAYS:
        known = [*_ARRAYS, *_DECODED]
        close = difflib.get_close_matches(dataset, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
        raise ValueError(f"dataset {dataset} is unknown: {hint}")
    splits, load = _ARRAYS[dataset]
    if split not in splits:
        raise ValueError(f"dataset {dataset} has no split {split}: choose one of {', '.join(splits)}.")
    return load(root, split, download)


def _find(dataset: str, root: Path, split: str, train_classes: int | None) -> EncodedImages:
    if dataset in PUBLISHED or train_classes is not None:
        return find_fine_grained(dataset, root, split, train_classes=train_classes)
    return {"folder": find_folder, "hf": find_saved, "webdataset": find_shards}[dataset](root, split)


def _tell_queries(images: Images, root: Path) -> Images:
    queries, gallery = (len(find_fine_grained("in_shop", root, part)) for part in ("query", "gallery"))
    if len(images) != queries + gallery:
        raise ValueError("in_shop cannot tell its queries from its gallery without all images: set on_error to raise.")
    return replace(images, queries=queries)
