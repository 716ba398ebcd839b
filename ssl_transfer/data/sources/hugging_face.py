"""Data sets of Hugging Face's ``datasets`` that lie on disk: saved with ``save_to_disk``, or as Parquet files."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from ssl_transfer.data.sources.encoded import EncodedImages
from ssl_transfer.data.sources.inventory import Tally
from ssl_transfer.data.sources.labels import number_labels
from ssl_transfer.data.sources.listing import is_hidden
from ssl_transfer.data.sources.parts import refuse_missing_parts
from ssl_transfer.data.sources.storage import Storage, sampled, sampled_file

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # what Arrow writes last into a file that was closed
# Names of columns of classes, where no column is of the type that says so: label, fine_label, class, ...
_CLASS_COLUMN = re.compile(r"(.*_)?(label|labels|class|classes|target|cls|category)", re.IGNORECASE)


class TableStorage(Storage):
    """The still encoded images of a column. The table is memory-mapped, so a worker process is sent its path alone."""

    def __init__(self, table: Any, column: str, files: Sequence[Path]):
        from datasets import Image

        self._table = table.select_columns([column]).cast_column(column, Image(decode=False))
        self._column, self._files = column, list(files)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, place: int) -> bytes:
        """The image's file, kept in the table or beside it.

        Raises:
            ValueError: the row has no image.
        """
        image = self._table[place][self._column]
        if image is None:
            raise ValueError("there is no image")
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()

    def name(self, place: int) -> str:
        """The table's folder and the row."""
        return f"{self._files[0].parent}: row {place}"

    def key(self, place: int) -> str:
        """The row."""
        return str(place)

    def sample(self, place: int) -> bytes:
        """Of the image's file.

        Raises:
            ValueError: the row has no image.
        """
        image = self._table.data.column(self._column)[place]  # Arrow's own view of the row: nothing is copied
        if not image.is_valid:
            raise ValueError("there is no image")
        if not image["bytes"].is_valid:
            return sampled_file(image["path"].as_py())
        content = memoryview(image["bytes"].as_buffer())
        return sampled(len(content), lambda start, count: bytes(content[start : start + count]))

    def changed(self) -> Int64[np.ndarray, " _"]:
        """Each file of the table."""
        return np.array([path.stat().st_mtime_ns for path in self._files])


def find_saved(root: Path, split: str, *, labels: str = "auto", image: str | None = None) -> EncodedImages:
    """The images of a data set saved below ``root``, with its labels if it has a column of classes.

    Looked for are ``root / split`` and ``root`` as ``save_to_disk`` writes them (the second for the split train alone),
    then the Parquet files of the folder ``root / split``, or named ``split-*.parquet`` in ``root`` or ``root / data``.

    Keyword arguments:
        labels: the column of classes: names of classes, or numbers from 0 on, below 0 where a label is hidden; ``none``
            leaves all images without labels; ``auto`` is the one column of type ``ClassLabel`` or, where there is none,
            whose name is or ends in label, labels, class, classes, target, cls or category.
        image: the column of images; None where there is one.

    Raises:
        FileNotFoundError: there is no such data set, or one of its files is missing.
        ValueError: ``datasets`` is not installed, a file was cut, the data set has no column of images, or which column
            is meant, or what a label is, cannot be known.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("dataset hf needs Hugging Face's library: pip install datasets") from error

    root = Path(root)
    table, files = _open(datasets, root, split)
    if not len(table):
        raise FileNotFoundError(f"The data set in {files[0].parent} has no rows.")
    where = f"The data set in {files[0].parent}"
    column = _image_column(datasets, table, image, where)
    of_classes = _class_column(datasets, table, labels, where)
    numbers, names = None, None
    if of_classes is not None:
        kind = table.features[of_classes]
        values = table[of_classes][:]
        numbers, names = number_labels(values, f"column {of_classes} of {files[0].parent}", "row {}".format)
        if isinstance(kind, datasets.ClassLabel) and numbers is not None:
            names = kind.names
    left_out = Tally()
    for name in table.features:
        if name not in (column, of_classes):
            left_out.leave_out("columns", name)
    saved = TableStorage(table, column, files)
    return EncodedImages.of_all(saved, numbers, name=root.name, split=split, class_names=names, left_out=left_out)


def _image_column(datasets: Any, table: Any, image: str | None, where: str) -> str:
    columns = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise ValueError(f"{where} has no images among its {', '.join(table.features)}.")
    if image is None and len(columns) > 1:
        raise ValueError(f"{where} has images in {', '.join(columns)}: choose a column, such as image={columns[0]}.")
    if image is not None and image not in columns:
        raise ValueError(f"{where} has no column {image} of images: choose image={' or image='.join(columns)}.")
    return image or columns[0]


def _class_column(datasets: Any, table: Any, labels: str, where: str) -> str | None:
    if labels == "none":
        return None
    columns = [name for name, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)]
    if not columns:
        plain = {name for name, kind in table.features.items() if isinstance(kind, datasets.Value)}
        columns = [name for name in table.features if _CLASS_COLUMN.fullmatch(name) and name in plain]
    if labels == "auto":
        if len(columns) > 1:
            raise ValueError(
                f"{where} has classes in {', '.join(columns)}: choose a column, such as labels={columns[0]}, or "
                "labels=none for images without labels."
            )
        return columns[0] if columns else None
    if labels not in table.features:
        raise ValueError(
            f"{where} has no column {labels}: choose labels=auto, none or one of {', '.join(table.features)}."
        )
    return labels


def _open(datasets: Any, root: Path, split: str) -> tuple[Any, list[Path]]:
    saved = [root / split] + ([root] if split == "train" else [])
    for folder in saved:
        if (folder / "state.json").is_file():
            files = [path for path in sorted(folder.glob("*.arrow")) if not is_hidden(path.name)]
            if not files:
                raise FileNotFoundError(f"The data set in {folder} has no rows.")
            for path in files:
                _check_end(path)
            return datasets.load_from_disk(str(folder)), files
    patterns = [(root / split, "*.parquet"), (root, f"{split}-*.parquet"), (root / "data", f"{split}-*.parquet")]
    for folder, pattern in patterns:
        found = [path for path in sorted(folder.glob(pattern)) if not is_hidden(path.name)]
        if found:
            refuse_missing_parts(found)
            return datasets.Dataset.from_parquet([str(path) for path in found]), found
    looked = [str(folder / "state.json") for folder in saved] + [str(folder / name) for folder, name in patterns]
    raise FileNotFoundError(f"There is no saved data set for split {split}: looked for {', '.join(looked)}.")


def _check_end(path: Path) -> None:
    """Arrow reads a file that was cut between two of its parts as a shorter one."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - len(_END_OF_STREAM)))
        if file.read() != _END_OF_STREAM:
            raise ValueError(f"{path} has no end: it was cut, or never written to its end; save the data set again.")
