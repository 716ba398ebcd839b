"""``ssl-transfer``: run, ls, show, validate, score. A user's mistake is one message and exit code 2."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ssl_transfer import __version__, config, runs
from ssl_transfer.errors import UserError

_OVERRIDES = {"nargs": "*", "metavar": "key.path=value", "help": "what to change in the recipe, read as YAML"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 2 where the person can mend what went wrong."""
    parser = argparse.ArgumentParser(
        prog="ssl-transfer", description="Teach a student what a self-supervised teacher knows."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, does: Callable[[argparse.Namespace], None], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(does=does)
        return added

    for name, does, summary in (
        (
            "run",
            _run,
            "train and score what a recipe describes (start it with accelerate launch -m ssl_transfer)",
        ),
        ("show", _show, "print the complete recipe, defaults and teacher included, and where it runs"),
        ("validate", _validate, "say everything that is wrong with a recipe"),
    ):
        added = command(name, does, summary)
        added.add_argument("recipe", type=Path, help="a YAML file, such as recipes/digits/transfer.yaml")
        added.add_argument("overrides", **_OVERRIDES)  # type: ignore[arg-type]
    command("ls", _ls, "list the recipes and runs below this folder").add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="where to look"
    )
    scoring = command("score", _score, "score a finished run again and rewrite its scores.json")
    scoring.add_argument("run", type=Path, help="a run folder, such as runs/digits-transfer")
    scoring.add_argument("overrides", **_OVERRIDES)  # type: ignore[arg-type]

    given = parser.parse_args(arguments)
    try:
        given.does(given)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"ssl-transfer: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _run(given: argparse.Namespace) -> None:
    loaded = config.load(given.recipe, given.overrides)
    from ssl_transfer import recipe  # loads torch: only when the recipe is known to be good

    recipe.run(loaded)
    recipe.leave()


def _score(given: argparse.Namespace) -> None:
    runs.read_recipe(given.run)
    loaded = config.load(given.run / "recipe.yaml", given.overrides)
    from ssl_transfer import recipe

    recipe.rescore(loaded, given.run)
    recipe.leave()


def _validate(given: argparse.Namespace) -> None:
    loaded = config.load(given.recipe, given.overrides)
    print(f"{given.recipe} is a valid recipe: {loaded.name}, {loaded.task.kind} into {loaded.model.backbone}")


def _show(given: argparse.Namespace) -> None:
    loaded = config.load(given.recipe, given.overrides)
    folder, notice = runs.folder_of(loaded)
    info = runs.read_info(folder)
    state = "not started" if info is None else "finished" if info.finished else f"{info.steps} steps done"
    print(config.dump(loaded), end="")
    print(f"# identity {config.identity_hash(loaded)}; run folder {folder}: {state}")
    if notice:
        print(f"# {notice}")


def _ls(given: argparse.Namespace) -> None:
    if not given.folder.is_dir():
        raise UserError(f"there is no folder {given.folder}")
    rows = [_recipe_row(path) for path in sorted((given.folder / "recipes").rglob("*.yaml"))]
    _print_table(
        ("recipe", "task", "backbone", "data"),
        rows,
        empty="no recipes here; a clone of the project has recipes/",
    )
    found = sorted(path.parent for path in (given.folder / "runs").glob("*/run.json"))
    _print_table(("run", "task", "backbone", "state"), [_run_row(path) for path in found], empty="no runs yet")


def _recipe_row(path: Path) -> tuple[str, ...]:
    try:
        loaded = config.load(path)
    except UserError as error:
        return str(path), f"not valid: {str(error).splitlines()[0]}", "", ""
    return str(path), loaded.task.kind, loaded.model.backbone, loaded.data.dataset


def _run_row(folder: Path) -> tuple[str, ...]:
    try:
        loaded, info = runs.read_recipe(folder), runs.read_info(folder)
    except UserError as error:
        return str(folder), f"not readable: {str(error).splitlines()[0]}", "", ""
    assert info is not None
    state = "finished" if info.finished else f"{info.steps} steps done"
    return str(folder), loaded.task.kind, loaded.model.backbone, state


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]], empty: str) -> None:
    if not rows:
        print(empty)
        return
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
