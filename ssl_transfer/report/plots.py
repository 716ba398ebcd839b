"""The figures of reports and tables, on matplotlib's figures alone: no window, no state shared between figures."""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.catalog.roles import TRAINED
from ssl_transfer.errors import UserError, one_line

try:
    import matplotlib
    from matplotlib.figure import Figure
except ValueError as error:  # of MPLBACKEND or a matplotlibrc, though no figure here asks for a window
    raise UserError(f"matplotlib cannot be loaded ({one_line(error)}): mend or unset MPLBACKEND") from error

_INK, _FAINT, _MARK = "#1f5a8c", "#b9c4ce", "#b3261e"
_POINTS = 400  # of a curve: as many as a figure can show


def curve(
    x: Sequence[float],
    y: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    marks: bool = False,
    reference: tuple[str, float] | None = None,
) -> str:
    """``y`` over ``x`` as SVG; a long curve shows the range of every few steps, and their mean as a line.

    ``reference`` is a value of y to compare with, and its name. Colors are those of ``style.html.j2``.
    """
    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.add_subplot()
    parts = max(1, -(-len(x) // _POINTS))
    groups = [slice(start, start + parts) for start in range(0, len(x), parts)]
    middle = [float(np.mean(x[part])) for part in groups]
    if parts > 1:
        low, high = ([float(edge(y[part])) for part in groups] for edge in (np.min, np.max))
        axes.fill_between(middle, low, high, color=_FAINT, linewidth=0)
    axes.plot(middle, [float(np.mean(y[part])) for part in groups], color=_INK, marker="o" if marks else None)
    if reference is not None:
        name, value = reference
        axes.axhline(value, color=_MARK, linestyle="--", linewidth=1, label=name)
        axes.legend(loc="upper right", frameon=False)
    _plain(axes, x_label, y_label)
    return _svg(figure)


def comparison_chart(summary: pd.DataFrame, title: str, path: Path) -> None:
    """A panel a metric, a dot a trained model with its standard deviation, lines for the models it is seen beside.

    ``summary`` is that of a comparison. A diamond is a published number. An axis shows the range of the dots and of
    the teacher, not zero; lines that would fall outside are left to the table.
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
        places, values = np.arange(len(methods)), 100 * scores["mean"].astype(float)
        spread = (100 * scores["sd"].astype(float)).fillna(0)
        axes.errorbar(values, places, xerr=spread, fmt="o", color=_INK, ecolor=_INK, capsize=3)
        printed = 100 * scores["published"].astype(float)
        if printed.notna().any():
            axes.plot(printed, places, "D", color=_MARK, label="published")
        beside = summary[(summary["metric"] == metric) & ~summary["role"].isin(TRAINED)]
        teachers = 100 * beside.loc[beside["role"] == "teacher", "mean"]
        seen = np.concatenate([values - spread, values + spread, printed, teachers])
        low, high = np.nanmin(seen), np.nanmax(seen)
        margin = max(0.1 * (high - low), 0.1)
        axes.set_xlim(low - margin, high + margin)
        for (_, row), style in zip(beside.iterrows(), ("-", "--", ":", "-.") * len(beside), strict=False):
            if low - margin <= 100 * row["mean"] <= high + margin:
                axes.axvline(100 * row["mean"], color=_FAINT, linestyle=style, linewidth=1.5, label=row["label"])
        in_numbers = axes.get_yaxis_transform()
        for place, value, sd in zip(places, values, 100 * scores["sd"].astype(float), strict=True):
            text = "" if np.isnan(value) else f"{value:.1f}" + ("" if np.isnan(sd) else f" ± {sd:.1f}")
            axes.text(1.02, place, text, transform=in_numbers, va="center")
        axes.set_yticks(places, methods)
        axes.set_ylim(-0.6, len(methods) - 0.4)
        axes.grid(axis="y", color=_FAINT, linewidth=0.5)
        _plain(axes, f"{metric} [%]", "")
    panels[0].invert_yaxis()
    for axes in panels[len(metrics) :]:
        axes.set_visible(False)
    names = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if names:
        figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"{title}\nbars: standard deviation; axes do not start at zero", fontsize="medium")
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
    """The figure to stand inside a page, in its colors: text as text, and the same bytes for the same figure."""
    text = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ssl_transfer"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    drawn = text.getvalue()[text.getvalue().index("<svg") :]
    for color, of_the_page in {_INK: "var(--ink)", _FAINT: "var(--faint)", _MARK: "var(--mark)"}.items():
        drawn = drawn.replace(color, of_the_page)
    return drawn.replace("#000000", "currentColor")
