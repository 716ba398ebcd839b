"""A comparison as a person reads it: Markdown, which is also what the terminal shows, CSV, and a chart."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ssl_transfer.files import write_atomically, write_text
from ssl_transfer.tables.compare import Comparison


def markdown(comparison: Comparison) -> str:
    """The table, the paired differences, and how each number was taken."""
    summary = comparison.summary
    lines = [f"Scores in %: mean ± standard deviation (n). {comparison.caption}.", "", *_summary(summary)]
    if comparison.warning is not None:
        lines[1:1] = ["", comparison.warning]
    if len(comparison.differences):
        lines += ["", *_differences(comparison)]
    lines += ["", *(f"* {metric}: {words}." for metric, words in comparison.protocols.items())]
    lines += [f"* published: {source}." for source in summary["source"].dropna().unique()]
    return "\n".join(lines) + "\n"


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``differences.csv``, ``runs.csv`` and ``chart.png``; values are fractions."""
    from ssl_transfer.report.plots import comparison_chart  # loads matplotlib

    frames = {"table": comparison.summary, "differences": comparison.differences, "runs": comparison.values}
    written = [folder / "table.md", *(folder / f"{name}.csv" for name in frames), folder / "chart.png"]
    write_text(folder / "table.md", markdown(comparison))
    for name, frame in frames.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    write_atomically(folder / "chart.png", lambda path: comparison_chart(comparison.summary, comparison.caption, path))
    return written


def _summary(summary: pd.DataFrame) -> list[str]:
    metrics = list(summary["metric"].unique())
    printed = {metric for metric in metrics if summary.loc[summary["metric"] == metric, "published"].notna().any()}
    header = ["", *(name for metric in metrics for name in ([metric, "published"] if metric in printed else [metric]))]
    rows = []
    for label, scores in summary.groupby("label", sort=False):
        row = [str(label)]
        for metric in metrics:
            found = scores[scores["metric"] == metric].to_dict("records")
            row.append(_mean_and_spread(found[0]["mean"], found[0]["sd"], found[0]["n"]) if found else "")
            if metric in printed:
                row.append(_percent(found[0]["published"]) if found else "")
        rows.append(row)
    return _aligned([header, *rows])


def _differences(comparison: Comparison) -> list[str]:
    differences = comparison.differences
    metrics = list(differences["metric"].unique())
    rows = []
    for label, scores in differences.groupby("label", sort=False):
        cells = {row["metric"]: row for row in scores.to_dict("records")}
        rows.append(
            [str(label)]
            + [
                _mean_and_spread(cells[m]["mean"], cells[m]["se"], cells[m]["n"], "+") if m in cells else ""
                for m in metrics
            ]
        )
    title = f"Difference to {comparison.baseline}, runs of the same seeds paired: mean ± standard error (pairs)."
    return [title, "", *_aligned([["", *metrics], *rows])]


def _mean_and_spread(mean: float, spread: float, n: int, sign: str = "") -> str:
    return f"{100 * mean:{sign}.2f}" + ("" if pd.isna(spread) else f" ± {100 * spread:.2f}") + f" ({n})"


def _percent(value: float | None) -> str:
    return "" if value is None or pd.isna(value) else f"{100 * value:.2f}".removesuffix("0")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up: the first to the left, numbers to the right."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    text = [
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return [text[0], rule, *text[1:]]
