"""What students of several sizes keep of their teacher, beside the same networks trained without one.

    ssl-transfer sweep recipes/cifar10/transfer-cpu.yaml model.backbone=cifar_vgg8_eighth,cifar_vgg8_quarter
    python benchmarks/retention.py runs/cifar10-transfer-cpu-* runs/simclr-alone-* --picture docs/retention.png

Reads the scores of finished runs; those of one task make a line, *alone* where they had no teacher. Times each
network on one thread of this machine, prints the table, draws the picture and keeps the numbers in
``results/retention-cpu.json``. Several seeds of one network become their mean and standard deviation.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from recording import write

from ssl_transfer import config, runs
from ssl_transfer.catalog.roles import TRAINED
from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.report.details import TIMED_BATCH, size_of
from ssl_transfer.teachers.loading import open_teacher

TEACHER = "teacher"
STYLES = (("#1f5a8c", "o"), ("#b3261e", "s"), ("#2e7d32", "^"), ("#8a5a00", "v"))  # of lines, in the order of the table
COLUMNS = ("kNN 20", "linear")


def row(line: str, network: str, found: list[dict[str, float]], costs: dict[str, float]) -> dict[str, Any]:
    """One model of the table: its scores in per cent over seeds."""
    scores = {}
    for column in COLUMNS:
        values = [100 * scores[column] for scores in found]
        scores[column] = {"mean": round(mean(values), 2), "sd": round(stdev(values), 2) if len(values) > 1 else None}
    return {"line": line, "network": network, "n": len(found), **costs, **scores}


def teacher_of(recipe: config.Recipe) -> EmbeddingModel:
    """The teacher of a finished run, which may be a run itself."""
    (teacher,) = recipe.teachers
    return open_teacher(teacher, None if teacher.recipe is None else runs.folder_of(teacher.recipe)[0])[0]


def rows(folders: list[Path], image_size: int) -> list[dict[str, Any]]:
    """The teacher, then line by line, the students before the networks alone, each from the smallest."""
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    costs: dict[str, dict[str, float]] = {}  # by network
    pixels = torch.zeros(TIMED_BATCH, 3, image_size, image_size, dtype=torch.uint8)
    blank = Images(pixels, None, None, "blank", "test", (0.0,) * 3, (1.0,) * 3)
    for folder in folders:
        recipe, scored = runs.read_recipe(folder), runs.read_scores(folder)
        if scored is None:
            print(f"{folder} has no scores yet: left out")
            continue
        for role in ("teacher", *TRAINED):
            values = {score.metric: score.value for score in scored.scores if score.role == role}
            own = {column: values[column] for column in COLUMNS if column in values}
            if len(own) < len(COLUMNS):
                continue
            model = teacher_of(recipe) if role == "teacher" else load_model(folder)[0]
            network = model.backbone
            task = recipe.task.kind.replace("_", " ")
            key = {"teacher": TEACHER, "student": task}.get(role, f"{task} alone"), network.name
            if network.name not in costs:
                size = size_of(network.eval().to(memory_format=torch.channels_last), blank)
                speed = round(size.images_per_second)
                costs[network.name] = {"weights": size.weights, "images_per_second": speed}
            if role != "teacher" or not found[key]:  # which every student's run has scored
                found[key].append(own)
    table = [row(line, network, scores, costs[network]) for (line, network), scores in found.items()]
    return sorted(
        table, key=lambda row: (row["line"] != TEACHER, row["line"].endswith(" alone"), row["line"], row["weights"])
    )


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """Scores against weights and against speed, a line for each task."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    teacher = next(row for row in table if row["line"] == TEACHER)
    names = list(dict.fromkeys(row["line"] for row in table if row is not teacher))
    for axes, (key, label) in zip(
        panels, {"weights": "weights", "images_per_second": "images/s on one CPU thread"}.items(), strict=True
    ):
        for name, (color, marker) in zip(names, STYLES, strict=False):
            # Networks of one family make a line; others are single points.
            points = sorted((row for row in table if row["line"] == name), key=lambda row: row[key])
            family = [row for row in points if row["network"].startswith("cifar_vgg8")]
            for group, style in ((family, "-"), ([row for row in points if row not in family], "none")):
                axes.errorbar(
                    [row[key] for row in group],
                    [row["kNN 20"]["mean"] for row in group],
                    yerr=[row["kNN 20"]["sd"] or 0 for row in group],
                    color=color, marker=marker, linestyle=style, capsize=3, label=name if style == "-" else None,
                )  # fmt: skip
        axes.axhline(teacher["kNN 20"]["mean"], color="#555555", linestyle="--", linewidth=1)
        axes.plot(teacher[key], teacher["kNN 20"]["mean"], "D", color="#555555", label="teacher")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("kNN 20 on CIFAR-10, %")
    panels[0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print and draw what the run folders hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--picture", type=Path, help="the PNG to draw")
    parser.add_argument("--image-size", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = rows(given.runs, given.image_size)
    teacher = next(row for row in table if row["line"] == TEACHER)
    print("| model | network | weights | images/s | n | kNN 20 | kept | linear | kept |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for found in table:
        cells = []
        for column in COLUMNS:
            score, spread = found[column]["mean"], found[column]["sd"]
            cells += [f"{score:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")]
            cells += [f"{100 * score / teacher[column]['mean']:.0f} %"]
        print(
            f"| {found['line']} | {found['network']} | {found['weights']:,} | {found['images_per_second']:,} |"
            f" {found['n']} | " + " | ".join(cells) + " |"
        )
    if given.picture is not None:
        draw(table, given.picture)
    write("retention", argparse.Namespace(device="cpu"), models=table)


if __name__ == "__main__":
    main()
