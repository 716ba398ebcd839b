"""``ssl-transfer map``: an embedding drawn flat, its images on it, and several models' maps of the same images."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from ssl_transfer.embeddings.table import Embeddings
from ssl_transfer.embeddings.thumbnails import Thumbnails
from ssl_transfer.features.flat import Method, flat, turned
from ssl_transfer.files import write_atomically

_IN_LEGEND = 20
_CELLS = 14  # across a map: at most one thumbnail each
_INK = "#1f5a8c"
_SIZE, _ZOOM = 14, 0.42  # of a point, in square points of print, and of a thumbnail of 48 pixels


def check_method(method: str) -> None:
    """Refuse a method that there is not.

    Raises:
        ValueError: it is none, or what computes it is not installed.
    """
    if method not in ("tsne", "umap", "pca"):
        raise ValueError(f"method {method} must be tsne, umap or pca")
    if method == "umap" and find_spec("umap") is None:
        raise ValueError("method umap needs umap-learn, which is not installed: pip install umap-learn, or take tsne")


def common_rows(tables: Sequence[Embeddings], points: int) -> Int64[np.ndarray, " m"]:
    """The rows that are drawn, of tables of the same images: all, or ``points`` of them, the same ones every time.

    Raises:
        ValueError: the tables are of different images.
    """
    names = tables[0].names
    for other in tables[1:]:
        if other.names != names:
            raise ValueError(
                f"the embeddings are of different images ({len(names)} and {len(other)}, or in another order): embed "
                "the same folder with both models"
            )
    if len(names) < 4:
        raise ValueError(f"{len(names)} images are too few for a map: give at least 4")
    return np.sort(np.random.default_rng(0).permutation(len(names))[:points])


def draw_map(
    path: Path,
    titled: Sequence[tuple[str, Embeddings]],
    *,
    method: Method = "tsne",
    thumbnails: bool = True,
    before_each: Callable[[str], None] = lambda title: None,
) -> str | None:
    """Draw a panel a model, of the same images, into a picture; returns what is wrong with it, if anything.

    Points are colored by class where there are classes. Later maps are turned to lie like the first. ``before_each`` is
    called with the title before a map is computed.

    Raises:
        ValueError, FileNotFoundError: the images cannot be shown (:class:`Thumbnails`).
        OSError: the system refused.
    """
    figure = Figure(figsize=(7.2 * len(titled), 7.6), layout="constrained")
    panels = figure.subplots(1, len(titled), squeeze=False)[0]
    pictures = Thumbnails(titled[0][1], size=48) if thumbnails else None
    first: np.ndarray | None = None
    for axes, (title, table) in zip(panels, titled, strict=True):
        before_each(title)
        places = flat(table.values, method)
        first = places if first is None else first
        places = places if first is places else turned(places, first)
        colors, handles = _points(axes, places, table)
        if pictures is not None:
            _pictures(axes, places, pictures, colors)
        axes.set_title(title)
        axes.margins(0.06)
        axes.set_xticks([])
        axes.set_yticks([])
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(handles), 5 * len(titled)),
            frameon=False,
            markerscale=2,
        )
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=150))
    missing = 0 if pictures is None else pictures.missing
    return f"{missing} images are not where they were, and gray in {path}" if missing else None


def _points(axes: Axes, places: np.ndarray, table: Embeddings) -> tuple[list, list]:
    """Draw the points; returns the color of each, and what a legend is made of, where classes are few."""
    classes = table.classes
    if classes is None:
        axes.scatter(places[:, 0], places[:, 1], s=_SIZE, color=_INK, linewidths=0)
        return [_INK] * len(places), []
    names = list(dict.fromkeys(sorted(classes, key=lambda name: (not name.isdecimal(), name.zfill(9)))))
    few = len(names) <= _IN_LEGEND
    palette = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20" if few else "hsv"]
    color_of = {name: palette(number if few else number / len(names)) for number, name in enumerate(names)}
    own = np.array(classes)
    handles = []
    for name, color in color_of.items():
        x, y = places[own == name].T
        handles.append(axes.scatter(x, y, s=_SIZE, color=[color], linewidths=0, label=name))
    return [color_of[name] for name in classes], handles if few else []


def _pictures(axes: Axes, places: np.ndarray, pictures: Thumbnails, colors: list) -> None:
    """One image in each cell of a grid, the one that lies nearest to its middle, framed in the color of its class."""
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.maximum(high - low, np.finfo(float).tiny) * _CELLS
    cells = np.minimum(scaled.astype(int), _CELLS - 1)
    off_middle = np.square(scaled - cells - 0.5).sum(axis=1)
    chosen: dict[tuple[int, int], int] = {}
    for row in np.argsort(off_middle, kind="stable"):
        chosen.setdefault((int(cells[row, 0]), int(cells[row, 1])), int(row))
    for row in chosen.values():
        frame = {"edgecolor": colors[row], "linewidth": 1.5}
        box = OffsetImage(pictures(row), zoom=_ZOOM)
        axes.add_artist(AnnotationBbox(box, places[row], pad=0, bboxprops=frame))
