"""``ssl-transfer neighbors``: what lies nearest to an image in an embedding, as names and as a page to look at."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from ssl_transfer.embeddings.embedder import Embedder, load_again
from ssl_transfer.embeddings.table import Embeddings
from ssl_transfer.embeddings.thumbnails import Thumbnails, as_data_url
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.files import write_text
from ssl_transfer.probes.nearest_neighbors import nearest
from ssl_transfer.report.rendering import rendered

DRAWN = 8  # images that are looked up where none is named


@dataclass(frozen=True)
class Query:
    """An image to look up: what it is called, its row in the table, or None and its embedding for one from outside."""

    name: str
    row: int | None
    value: Float[np.ndarray, " d"]
    file: Path | None = None


@dataclass(frozen=True)
class Nearest:
    """The rows of a table that are nearest to a query, nearest first, and how near."""

    query: Query
    rows: list[int]
    similarity: list[float]


def find_queries(table: Embeddings, words: Sequence[str]) -> list[Query]:
    """The images that ``words`` name: files of the table, by their name there or their path; its rows; other files.

    Other files are embedded as the table was. Where there is no word, some images of the table are drawn.

    Raises:
        UserError: a word names no image, or the model is not what it was.
    """
    if not words:
        drawn = np.random.default_rng(0).permutation(len(table))[:DRAWN]
        return [Query(table.names[row], int(row), table.values[row]) for row in sorted(drawn)]
    place = {name: row for row, name in enumerate(table.names)}
    if table.files is None:
        place |= {str(number): row for row, number in enumerate(table.rows.tolist())}
    folder = table.about.get("images", {}).get("folder")
    model: Embedder | None = None
    found = []
    for word in words:
        below = os.path.relpath(os.path.abspath(word), folder) if folder is not None else word
        row = place.get(word, place.get(below.replace(os.sep, "/")))
        if row is not None:
            found.append(Query(word, row, table.values[row]))
            continue
        if not Path(word).is_file():
            known = f"such as {table.names[0]}" if table.files is not None else "0 and so on"
            raise UserError(f"{word} is neither an image of these embeddings ({known}) nor a file")
        model = model or load_again(table.about)
        with user_mistakes():
            size = table.about["images"].get("image_size")
            own = model.embed([word], layer=table.about["layer"], image_size=size, progress=False)
        found.append(Query(word, None, own.values[0], Path(word)))
    return found


def search(
    table: Embeddings, queries: Sequence[Query], k: int, metric: Literal["cosine", "euclidean"]
) -> list[Nearest]:
    """The ``k`` rows that are nearest to each query, which is none of its own neighbors.

    The similarity is the cosine, or the Euclidean distance.

    Raises:
        ValueError: there are fewer rows.
    """
    others = len(table) - 1
    if not 1 <= k <= others:
        raise ValueError(f"{k} neighbors cannot be had of {len(table)} images: ask for 1 to {others}")
    asked = torch.from_numpy(np.stack([query.value for query in queries]))
    bank = torch.from_numpy(table.values)
    found = []
    for tile in nearest(asked, bank, k + 1, metric=metric):
        for query, index in zip(queries[tile.rows], tile.index.tolist(), strict=True):
            rows = [row for row in index if row != query.row][:k]
            found.append(Nearest(query, rows, _similarity(query.value, table.values[rows], metric)))
    return found


def in_words(table: Embeddings, found: Sequence[Nearest]) -> list[str]:
    """A line for each query, and one for each of its neighbors below it."""
    names, classes = table.names, table.classes
    lines = []
    for one in found:
        own = "" if classes is None or one.query.row is None else f"  ({classes[one.query.row]})"
        lines.append(f"{one.query.name}{own}")
        for row, similarity in zip(one.rows, one.similarity, strict=True):
            label = "" if classes is None else f"  ({classes[row]})"
            lines.append(f"  {similarity:.3f}  {names[row]}{label}")
    return lines


def write_gallery(path: Path, titled: Sequence[tuple[str, Embeddings, Sequence[Nearest]]], metric: str) -> str | None:
    """Write a page: a query a section, a line of neighbors a model; returns what is wrong with it, if anything.

    Raises:
        ValueError, FileNotFoundError: the images cannot be shown (:class:`Thumbnails`).
        OSError: the system refused.
    """
    pictures = {id(table): Thumbnails(table) for _, table, _ in titled}
    _, first, queries = titled[0]
    sections = []
    for number, one in enumerate(queries):
        picture = pictures[id(first)]
        shown = picture(one.query.row) if one.query.row is not None else picture.of_file(one.query.file or Path())
        label = None if first.classes is None or one.query.row is None else first.classes[one.query.row]
        rows = [
            {"title": title, "neighbors": _shown(table, found[number], pictures[id(table)], label)}
            for title, table, found in titled
        ]
        sections.append({"name": one.query.name, "label": label, "picture": as_data_url(shown), "rows": rows})
    made_by = [{"title": title, "images": len(table)} for title, table, _ in titled]
    content = {"sections": sections, "made_by": made_by, "metric": metric}
    write_text(path, rendered("gallery.html.j2", content, package="ssl_transfer.embeddings"))
    missing = sum(picture.missing for picture in pictures.values())
    return f"{missing} images are not where they were, and gray in {path}" if missing else None


def model_names(tables: Sequence[Embeddings], paths: Sequence[Path]) -> list[str]:
    """What to call the models that made tables; where two have one name, with their files."""

    def name(table: Embeddings, path: Path) -> str:
        model = table.about.get("model", {})
        place = model.get("checkpoint") or model.get("file")
        return Path(place).name if place else model.get("timm") or model.get("torchvision") or path.stem

    names = [name(table, path) for table, path in zip(tables, paths, strict=True)]
    several = {one for one in names if names.count(one) > 1}
    return [f"{one} ({path.name})" if one in several else one for one, path in zip(names, paths, strict=True)]


def _shown(table: Embeddings, found: Nearest, picture: Callable[[int], Any], label: str | None) -> list[dict[str, Any]]:
    names, classes = table.names, table.classes
    return [
        {
            "name": names[row],
            "label": None if classes is None else classes[row],
            "same": label is None or classes is None or classes[row] == label,
            "similarity": f"{similarity:.3f}",
            "picture": as_data_url(picture(row)),
        }
        for row, similarity in zip(found.rows, found.similarity, strict=True)
    ]


def _similarity(query: np.ndarray, rows: np.ndarray, metric: str) -> list[float]:
    one, others = query.astype(np.float64), rows.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(others - one, axis=1).tolist()
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(one)
    return (others @ one / np.maximum(lengths, np.finfo(float).tiny)).tolist()
