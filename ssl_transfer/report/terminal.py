"""The table of scores that a person reads in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ssl_transfer.catalog.roles import Role
from ssl_transfer.runs.suite_file import SuiteResults
from ssl_transfer.scores.score import ScoreTable

WIDTH = 78  # of a table: columns are placed side by side as far as they fit into a terminal of 80 characters


def print_scores(table: ScoreTable, title: str, console: Console) -> None:
    """A row a model, a column a metric, in percent; as many tables as the columns need."""
    if not table.scores:  # agreement, say, where there is no teacher
        console.print(f"{title}: nothing that was asked for can be measured of these models", soft_wrap=True)
        return
    n_train = max(score.protocol.get("n_train", 0) for score in table.scores)
    spread = f"; ± sd over {table.repeated}" if table.repeated else ""
    caption = f"in % on {table.tested_on}, {n_train:,} training images{spread}"
    console.print(f"{title}: {caption}", highlight=False, soft_wrap=True)
    kept = {f"student / {teacher}": shares for teacher, shares in table.kept.items()}
    columns: dict[str, list[str]] = {metric: [] for metric in table.metrics}
    for model in table.models:
        for metric, score in zip(table.metrics, table.row(model), strict=True):
            columns[metric].append("" if score is None else score.percent)
    for metrics in _side_by_side(columns, first=max(len(name) for name in [*table.models, *kept])):
        shown = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        shown.add_column("model", no_wrap=True)
        for metric in metrics:
            shown.add_column(metric, justify="right", no_wrap=True)
        for row, model in enumerate(table.models):
            shown.add_row(model, *(columns[metric][row] for metric in metrics))
        shown.add_section()
        for name, shares in kept.items():
            if any(metric in shares for metric in metrics):
                cells = (f"{100 * shares[metric]:.0f} %" if metric in shares else "" for metric in metrics)
                shown.add_row(name, *cells)
        console.print(shown)


def print_suite(results: SuiteResults, console: Console) -> None:
    """A table for each probe: a row a data set, a column a model, in percent, and what each kept of the teacher's."""
    if results.models:
        console.print(", ".join(name for name, _ in results.models), highlight=False, soft_wrap=True)
    for probe in results.probes:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        table.add_column(probe, no_wrap=True)
        table.add_column("metric", no_wrap=True)
        headings = {name: _heading(name, role, results) for name, role in results.models}
        for heading in headings.values():
            table.add_column(heading, justify="right", overflow="fold")
        for name in results.compared:
            kept = "kept" if len(results.compared) == 1 else f"kept, {headings[name]}"
            table.add_column(kept, justify="right", overflow="fold")
        for row in results.rows(probe):
            cells = ["" if score is None else score.percent for score in row.scores]
            table.add_row(row.dataset, row.measure, *cells, *map(_share, row.kept))
        scores, shares = results.mean(probe)
        table.add_section()
        values = ["" if value is None else f"{100 * value:.1f}" for value in scores]
        table.add_row("mean", "", *values, *map(_share, shares))
        console.print(table)
    for what, why in {**results.missing, **results.failed}.items():
        console.print(f"{what}: {why}", highlight=False, soft_wrap=True)


def _heading(name: str, role: Role, results: SuiteResults) -> str:
    """The role of a model that alone has it, since names are long and columns narrow; else its name."""
    alone = sum(other == role for _, other in results.models) == 1
    return role if alone and role != "other" else name


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _side_by_side(columns: dict[str, list[str]], first: int) -> list[list[str]]:
    """The metrics, broken into tables that fit the width beside a first column of ``first`` characters."""
    tables: list[list[str]] = []
    left = 0
    for metric, cells in columns.items():
        width = 2 + max(len("100 %"), len(metric), *map(len, cells))
        if not tables or width > left:
            tables, left = [*tables, []], WIDTH - first
        tables[-1].append(metric)
        left -= width
    return tables
