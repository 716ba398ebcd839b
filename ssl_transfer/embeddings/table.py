"""Embeddings with the names and labels of their images, in memory and in a file. Loads no torch."""

import json
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from ssl_transfer.errors import one_line
from ssl_transfer.files import write_atomically

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class Embeddings:
    """A row of ``values`` for each image.

    Attributes:
        values: the embeddings.
        rows: the place of each image in its folder or data set, of which some may have been left out.
        files: the name of each image's file within its folder or data set; None where images are no files.
        labels: the number of each image's class; None where there are none.
        class_names: by the number of the class, where classes have names.
        about: which model made them of which images, and how.
    """

    values: Float32[np.ndarray, "n d"]
    rows: Int64[np.ndarray, " n"]
    files: np.ndarray | None = None
    labels: Int64[np.ndarray, " n"] | None = None
    class_names: tuple[str, ...] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    @property
    def names(self) -> list[str]:
        """What to call each image: its file, or its place in its data set."""
        return [f"image {row}" for row in self.rows.tolist()] if self.files is None else self.files.tolist()

    @property
    def classes(self) -> list[str] | None:
        """The name of each image's class, or its number where classes have no names; None where there are none."""
        if self.labels is None:
            return None
        return [str(label) if self.class_names is None else self.class_names[label] for label in self.labels.tolist()]

    def select(self, rows: Int64[np.ndarray, " m"]) -> "Embeddings":
        """Those of these rows of the table, in this order."""
        chosen = {name: column[rows] for name, column in {"values": self.values, **self._columns()}.items()}
        return replace(self, **chosen)

    def save(self, path: str | Path) -> None:
        """Write a file that :func:`read_embeddings` reads, ``.npz`` or ``.parquet`` by its name.

        Raises:
            ValueError: its name ends in neither, or what writes it is not installed.
            OSError: the system refused.
        """
        write_embeddings(Path(path), self, [self.values])

    def _columns(self) -> dict[str, np.ndarray]:
        """What there is beside the values."""
        columns = {name: getattr(self, name) for name in ("rows", "files", "labels")}
        return {name: column for name, column in columns.items() if column is not None}


def write_embeddings(path: Path, table: Embeddings, blocks: Iterable[Float32[np.ndarray, "m d"]]) -> None:
    """Write a file of the ``blocks`` one after another, with what ``table`` says of them beside its own values.

    An npz file holds arrays under the names of :class:`Embeddings`, and ``about`` as JSON. A Parquet file has a row an
    image, and ``about`` and ``class_names`` as JSON in the metadata of its schema. One block at a time is in memory.

    Raises:
        ValueError: the name ends in neither, or what writes it is not installed.
        OSError: the system refused.
    """
    check_name(path)
    write = _write_npz if path.suffix == ".npz" else _write_parquet
    write_atomically(path, lambda temporary: write(temporary, table, iter(blocks)))


def check_name(path: Path) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        ValueError: its name ends in nothing that is known, or what writes it is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in {' or '.join(SUFFIXES)}, which say how embeddings are kept")
    if path.suffix == ".parquet":
        _pyarrow()


def read_embeddings(path: str | Path) -> Embeddings:
    """What ``ssl-transfer embed`` or :meth:`Embeddings.save` wrote.

    The values of an npz file are mapped from it, and come into memory as they are looked at; those of a Parquet file,
    which are compressed, are held.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or what reads it is not installed.
    """
    path = Path(path)
    check_name(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: make it with ssl-transfer embed MODEL FOLDER --to {path}")
    read = _read_npz if path.suffix == ".npz" else _read_parquet
    try:
        return read(path)
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} does not hold embeddings that ssl-transfer embed wrote ({one_line(error)}): make it again"
        ) from None


def read_about(path: Path) -> dict[str, Any] | None:
    """What made the embeddings in a file, None where that is no file of embeddings."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return json.loads(str(held["about"]))
        return json.loads(_pyarrow()[1].read_schema(path).metadata[b"about"])
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile):
        return None


def _write_npz(path: Path, table: Embeddings, blocks: Iterator[np.ndarray]) -> None:
    """As numpy.savez does, but block by block, and with the names compressed, which repeat each other."""
    first = next(blocks)
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(table), first.shape[1])}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("values.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_2_0(file, header)
            for block in chain([first], blocks):
                file.write(np.ascontiguousarray(block, dtype="<f4").data)
        others: dict[str, Any] = {**table._columns(), "about": np.array(json.dumps(table.about))}
        if table.class_names is not None:
            others["class_names"] = np.array(table.class_names)
        for name, value in others.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def _read_npz(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held if name != "values"}
        values = _mapped(path, held.zip)
        arrays["values"] = held["values"] if values is None else values
    about = json.loads(str(arrays.pop("about")))
    names = arrays.pop("class_names", None)
    return Embeddings(**arrays, class_names=None if names is None else tuple(names.tolist()), about=about)


def _mapped(path: Path, archive: zipfile.ZipFile) -> np.ndarray | None:
    """The values in an npz file, of which what is written to them does not become a part; None where another tool has
    written them otherwise than :func:`_write_npz` does.

    Raises:
        BadZipFile: they are damaged.
    """
    member = archive.getinfo("values.npy")
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (2, 0):
            return None
        shape, by_columns, dtype = np.lib.format.read_array_header_2_0(file)
        header = file.tell()
        while file.read(2**20):  # to the end, where its checksum is compared
            pass
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        start = file.tell() + 4 + sum(struct.unpack("<HH", file.read(4))) + header
    if member.compress_type != zipfile.ZIP_STORED or dtype != np.dtype("<f4") or by_columns or start % dtype.itemsize:
        return None
    return np.memmap(path, dtype, "c", start, shape)


def _write_parquet(path: Path, table: Embeddings, blocks: Iterator[np.ndarray]) -> None:
    pa, parquet = _pyarrow()
    first = next(blocks)
    columns = {"row": table.rows, "file": table.files, "label": table.labels}
    given = {name: pa.array(column) for name, column in columns.items() if column is not None}
    kinds = {
        **{name: column.type for name, column in given.items()},
        "embedding": pa.list_(pa.float32(), first.shape[1]),
    }
    notes = {"about": json.dumps(table.about), "class_names": json.dumps(table.class_names)}
    schema = pa.schema(list(kinds.items()), metadata=notes)
    start = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for block in chain([first], blocks):
            flat = pa.array(np.ascontiguousarray(block, dtype=np.float32).ravel())
            rows = [column.slice(start, len(block)) for column in given.values()]
            rows.append(pa.FixedSizeListArray.from_arrays(flat, first.shape[1]))
            writer.write_table(pa.Table.from_arrays(rows, schema=schema))
            start += len(block)


def _read_parquet(path: Path) -> Embeddings:
    _, parquet = _pyarrow()
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        about, names = (json.loads(schema.metadata[key]) for key in (b"about", b"class_names"))
        values = np.empty((file.metadata.num_rows, schema.field("embedding").type.list_size), np.float32)
        start = 0
        for batch in file.iter_batches(8192, columns=["embedding"]):
            rows = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
            values[start : start + len(batch)] = rows.reshape(len(batch), -1)
            start += len(batch)
        others = file.read([name for name in ("row", "file", "label") if name in schema.names])

    def column(name: str) -> Any:
        return others[name].to_numpy() if name in others.column_names else None

    files = column("file")
    return Embeddings(
        values,
        column("row"),
        files=None if files is None else files.astype(np.str_),
        labels=column("label"),
        class_names=None if names is None else tuple(names),
        about=about,
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            "a .parquet file needs pyarrow, which is not installed: pip install 'ssl-transfer[parquet]', or write .npz"
        ) from None
    return pyarrow, pyarrow.parquet
