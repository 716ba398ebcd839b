"""The table of scores that a person reads in a terminal."""

from collections.abc import Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ssl_transfer.scoring.scores import Score, kept, tested_on

# Columns stand side by side as far as they fit into a terminal of 80 characters.
WIDTH = 78


def print_scores(scores: Sequence[Score], title: str, console: Console) -> None:
    """A row a model, a column a metric, in percent; as many tables as it takes columns."""
    if not scores:  # agreement, say, where there is no teacher
        console.print(f"{title}: nothing that was asked for can be measured of these models", soft_wrap=True)
        return
    console.print(f"{title}: {_caption(scores)}", highlight=False, soft_wrap=True)
    cells = pd.DataFrame(
        {"model": score.model, "metric": score.metric, "text": score.percent} for score in scores
    ).pivot(index="model", columns="metric", values="text")
    cells = cells.loc[list(dict.fromkeys(score.model for score in scores))].fillna("")
    shares = kept(scores)
    for metrics in _rows_of_columns(list(dict.fromkeys(score.metric for score in scores)), cells):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
        table.add_column("model", no_wrap=True)
        for metric in metrics:
            table.add_column(metric, justify="right", no_wrap=True)
        for model in cells.index:
            table.add_row(model, *(str(cells.loc[model, metric]) for metric in metrics))
        if any(metric in shares for metric in metrics):
            table.add_section()
            row = (f"{100 * shares[metric]:.0f} %" if metric in shares else "" for metric in metrics)
            table.add_row("student / teacher", *row)
        console.print(table)


def _rows_of_columns(metrics: Sequence[str], cells: pd.DataFrame) -> list[list[str]]:
    """The columns, broken into tables that fit the width."""
    first = max(len(model) for model in [*cells.index, "student / teacher"])
    rows: list[list[str]] = []
    left = 0
    for metric in metrics:
        width = 2 + max(len("100 %"), len(metric), *(len(text) for text in cells[metric]))
        if not rows or width > left:
            rows, left = [*rows, []], WIDTH - first
        rows[-1].append(metric)
        left -= width
    return rows


def _caption(scores: Sequence[Score]) -> str:
    n_train = max(score.protocol.get("n_train", 0) for score in scores)
    repeated = dict.fromkeys(score.repeated for score in scores if score.repeated is not None)
    spread = f"; ± sd over {' or '.join(repeated)}" if repeated else ""
    return f"in % on {tested_on(scores)}, {n_train:,} training images{spread}"
