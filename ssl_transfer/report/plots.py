"""The figures of reports and tables, on matplotlib's figures alone: no window, no state shared between figures."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ssl_transfer.catalog.roles import TRAINED

_INK, _FAINT = "#1f5a8c", "#b9c4ce"
_POINTS = 400  # of a curve: as many as a figure can show


def curve(x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, marks: bool = False) -> str:
    """``y`` over ``x`` as SVG; a long curve shows the range of every few steps, and their mean as a line."""
    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.add_subplot()
    parts = max(1, -(-len(x) // _POINTS))
    groups = [slice(start, start + parts) for start in range(0, len(x), parts)]
    middle = [float(np.mean(x[part])) for part in groups]
    if parts > 1:
        low, high = ([float(edge(y[part])) for part in groups] for edge in (np.min, np.max))
        axes.fill_between(middle, low, high, color=_FAINT, linewidth=0)
    axes.plot(middle, [float(np.mean(y[part])) for part in groups], color=_INK, marker="o" if marks else None)
    _plain(axes, x_label, y_label)
    return _svg(figure)


def bar_chart(summary: pd.DataFrame, title: str, path: Path) -> None:
    """A panel a metric, a bar a trained model with its standard deviation, lines for the models it is seen beside.

    ``summary`` is that of a comparison. A diamond is a published number.
    """
    metrics = list(summary["metric"].unique())
    own = summary[summary["role"].isin(TRAINED)]
    methods = list(own["label"].unique())
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(4.5 * columns + 1, rows * (0.32 * len(methods) + 1.3)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for metric, axes in zip(metrics, panels, strict=False):
        scores = own[own["metric"] == metric].set_index("label").reindex(methods)
        places, values = np.arange(len(methods)), 100 * scores["mean"]
        spread = (100 * scores["sd"]).fillna(0)
        axes.barh(places, values, xerr=spread, color=_FAINT, ecolor="black", capsize=3)
        printed = 100 * scores["published"].astype(float)
        if printed.notna().any():
            axes.plot(printed, places, "D", color="#b3261e", label="published")
        beside = summary[(summary["metric"] == metric) & ~summary["role"].isin(TRAINED)]
        for (_, row), style in zip(beside.iterrows(), ("-", "--", ":", "-.") * len(beside), strict=False):
            axes.axvline(100 * row["mean"], color=_INK, linestyle=style, linewidth=1, label=row["label"])
        # In numbers too: bars begin at 0, where a few points between methods are hard to see.
        beside_axes = axes.get_yaxis_transform()
        for place, value, sd in zip(places, values, 100 * scores["sd"], strict=True):
            text = "" if np.isnan(value) else f"{value:.1f}" + ("" if np.isnan(sd) else f" ± {sd:.1f}")
            axes.text(1.02, place, text, transform=beside_axes, va="center")
        axes.set_yticks(places, methods)
        _plain(axes, f"{metric} [%]", "")
    panels[0].invert_yaxis()
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    figure.savefig(path, format="png", dpi=150)


# By role: how a model is marked in a chart of many data sets.
_MARKS: dict[str, dict[str, Any]] = {
    "teacher": {"marker": "|", "color": "black", "markersize": 14, "markeredgewidth": 2},
    "untrained": {"marker": "o", "markerfacecolor": "none", "color": _INK},
    "raw pixels": {"marker": "x", "color": _FAINT},
}
_COLORS = (_INK, "#b3261e", "#2e7d32", "#8e24aa", "#ef6c00")

Rows = dict[str, dict[tuple[str, str], float]]  # data set -> (model, role) -> score


def dot_chart(tables: dict[str, Rows], path: Path) -> None:
    """A panel for each probe, a line a data set, a mark a model, as PNG."""
    _dots(tables).savefig(path, format="png", dpi=150)


def dot_svg(tables: dict[str, Rows]) -> str:
    """The same as SVG."""
    return _svg(_dots(tables))


def _dots(tables: dict[str, Rows]) -> Figure:
    lines = max(len(rows) for rows in tables.values())
    figure = Figure(figsize=(6.5 * len(tables), 0.34 * lines + 1.4), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for (probe, rows), axes in zip(tables.items(), panels, strict=True):
        models = list(dict.fromkeys(model for row in rows.values() for model in row))
        colors = iter(_COLORS * len(models))
        for model in models:
            places = [place for place, row in enumerate(rows.values()) if model in row]
            values = [100 * row[model] for row in rows.values() if model in row]
            mark = _MARKS.get(model[1]) or {"marker": "o", "color": next(colors)}
            axes.plot(values, places, linestyle="none", label=model[0], **mark)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="y", color=_FAINT, linewidth=0.5)
        axes.set_axisbelow(True)
        _plain(axes, f"{probe} [%]", "")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _plain(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(figure: Figure) -> str:
    """The figure to stand inside a page: text as text, and the same bytes for the same figure."""
    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ssl_transfer"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
