"""The section of a suite in a report, and the page of a suite that is no run's."""

from pathlib import Path
from typing import Any

from ssl_transfer.files import write_atomically, write_text
from ssl_transfer.progress import duration
from ssl_transfer.report.rendering import protocols, rendered
from ssl_transfer.runs.suite_file import SuiteResults
from ssl_transfer.scores.score import ScoreTable

CHART = "suite.png"


def write_suite_page(folder: Path, results: SuiteResults) -> Path:
    """Write ``report.html`` and the chart of a suite into ``folder``, and return the page's path."""
    from ssl_transfer.report.plots import dot_chart

    path = folder / "report.html"
    write_text(path, rendered("suite_page.html.j2", {"suite": suite_content(results)}))
    tables = {probe: chart_rows(results, probe) for probe in results.probes}
    write_atomically(folder / CHART, lambda temporary: dot_chart(tables, temporary))
    return path


def suite_content(results: SuiteResults) -> dict[str, Any]:
    """What the section shows."""
    from markupsafe import Markup

    from ssl_transfer.report.plots import dot_svg

    tables = []
    for probe in results.probes:
        rows = [
            {"name": row.dataset, "measure": row.measure, "cells": [*map(_cell, row.scores), *map(_share, row.kept)]}
            for row in results.rows(probe)
        ]
        scores, kept = results.mean(probe)
        mean = ["" if value is None else f"{100 * value:.1f}" for value in scores] + [_share(value) for value in kept]
        chart = Markup(dot_svg({probe: chart_rows(results, probe)}))
        tables.append({"probe": probe, "rows": rows, "mean": mean, "chart": chart})
    about = results.about
    limited = f"at most {about['images']:,} images of each split; " if about.get("images") else ""
    return {
        "title": ", ".join(about.get("on", [])),
        "about": f"{limited}{about.get('device', '')}, {duration(about.get('seconds', 0.0))}, {about.get('date', '')}",
        "models": [name for name, _ in results.models],
        "compared": results.compared,
        "tables": tables,
        "lacking": {**results.missing, **results.failed},
        "protocols": _by_set(results),
    }


def chart_rows(results: SuiteResults, probe: str) -> dict[str, dict[tuple[str, str], float]]:
    """For each data set the score of each model, which is its name and role."""
    return {
        f"{row.dataset} ({row.measure})": {
            model: score.value for model, score in zip(results.models, row.scores, strict=True) if score is not None
        }
        for row in results.rows(probe)
    }


def _by_set(results: SuiteResults) -> list[dict[str, Any]]:
    found = []
    for name in dict.fromkeys(score.protocol["set"] for score in results.scores):
        own = ScoreTable([score for score in results.scores if score.protocol["set"] == name])
        found += [{**protocol, "set": name} for protocol in protocols(own)]
    return found


def _cell(score: Any) -> str:
    return "" if score is None else score.percent


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"
