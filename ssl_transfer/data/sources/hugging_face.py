"""Data sets of Hugging Face's ``datasets`` that lie on disk: saved with ``save_to_disk``, or as Parquet files."""

from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.sources.encoded import EncodedImages


class TableStorage:
    """The still encoded images of a column. The table is memory-mapped, so a worker process is sent its path alone."""

    def __init__(self, table: Any, column: str, files: list[Path]):
        import pyarrow.compute as arrow
        from datasets import Image

        self.table = table.select_columns([column]).cast_column(column, Image(decode=False))
        self.column, self.files = column, files
        lengths = arrow.binary_length(arrow.struct_field(self.table.data.column(column), "bytes"))
        self.sizes = np.array(lengths.fill_null(0))  # null where an image is a path to its file

    def __len__(self) -> int:
        return len(self.table)

    def read(self, place: int) -> bytes:
        """The image's file."""
        image = self.table[place][self.column]
        if image is None:
            raise ValueError("there is no image")
        return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()

    def name(self, place: int) -> str:
        """The table's folder and the row."""
        return f"{self.files[0].parent}: row {place}"

    def key(self, place: int) -> str:
        """The row and the size of its file."""
        return f"{place} {self.sizes[place]}"

    def modified(self) -> float:
        """When the newest file of the table was changed."""
        return max(path.stat().st_mtime for path in self.files)


def find_saved(root: Path, split: str) -> EncodedImages:
    """The images of a data set saved below ``root``, with its labels if it has a column of classes.

    Looked for are ``root / split`` and ``root`` as ``save_to_disk`` writes them (the second for the split train alone),
    then the Parquet files of the folder ``root / split``, or named ``split-*.parquet`` in ``root`` or ``root / data``.

    Raises:
        FileNotFoundError: there is no such data set.
        ValueError: ``datasets`` is not installed, or the data set has no column of images.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("dataset hf needs Hugging Face's library: pip install datasets") from error

    root = Path(root)
    table, files = _open(datasets, root, split)
    images = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if not images:
        raise ValueError(f"The data set in {files[0].parent} has no images among its {', '.join(table.features)}.")
    classes = [name for name, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = table[classes[0]][:] if classes else None
    if labels is None or any(label is None or label < 0 for label in labels):  # -1 is a hidden label
        labels, names = None, None
    else:
        names = table.features[classes[0]].names
    saved = TableStorage(table, images[0], files)
    return EncodedImages.of_all(saved, labels, name=root.name, split=split, class_names=names)


def _open(datasets: Any, root: Path, split: str) -> tuple[Any, list[Path]]:
    saved = [root / split] + ([root] if split == "train" else [])
    for folder in saved:
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder)), sorted(folder.glob("*.arrow"))
    patterns = [(root / split, "*.parquet"), (root, f"{split}-*.parquet"), (root / "data", f"{split}-*.parquet")]
    for folder, pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return datasets.Dataset.from_parquet([str(path) for path in found]), found
    looked = [str(folder / "state.json") for folder in saved] + [str(folder / name) for folder, name in patterns]
    raise FileNotFoundError(f"There is no saved data set for split {split}: looked for {', '.join(looked)}.")
