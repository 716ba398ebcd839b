"""``ssl-transfer``: run, sweep, compare, ls, show, validate, score ... A mistake is one message and exit code 2."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssl_transfer import __version__, config, runs
from ssl_transfer.catalog.roles import TRAINED
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.program import ends_in_a_sentence, loading, speaks
from ssl_transfer.section import path_argument

_NAME = "ssl-transfer"
_SEVERAL = {"compare": "runs", "neighbors": "images", "map": "embeddings", "suite": "models"}  # else overrides
_OVERRIDES = {"nargs": "*", "metavar": "key.path=value", "help": "what to change in the recipe, read as YAML"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 2 where the person can mend what went wrong."""
    with ends_in_a_sentence(_NAME):
        given = _parsed(arguments)
        given.arguments = sys.argv[1:] if arguments is None else arguments
        given.does(given)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_NAME, description="Teach a student what a self-supervised teacher knows.")
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
            "train and score what a recipe describes",
        ),
        ("show", _show, "print the complete recipe, defaults and teacher included, and where it runs"),
        ("validate", _validate, "say everything that is wrong with a recipe"),
    ):
        added = command(name, does, summary)
        added.add_argument("recipe", type=_path, help="a YAML file, such as recipes/digits/transfer.yaml")
        added.add_argument("overrides", **_OVERRIDES)  # type: ignore[arg-type]
        if name == "run":
            _add_processes(added)
        if name == "show":
            added.add_argument("--views", type=_path, metavar="PNG", help="draw some images and their views instead")
    command("ls", _ls, "list the recipes and runs below this folder").add_argument(
        "folder", type=_path, nargs="?", default=Path(), help="where to look"
    )
    scoring = command("score", _score, "score a finished run again and rewrite its scores.json")
    scoring.add_argument("run", type=_path, help="a run folder, such as runs/digits-transfer")
    scoring.add_argument("overrides", **_OVERRIDES)  # type: ignore[arg-type]
    _add_processes(scoring)

    sweeping = command("sweep", _sweep, "run a recipe with every combination of values, and compare their scores")
    sweeping.add_argument("recipe", type=_path, help="a YAML file, such as recipes/digits/transfer.yaml")
    sweeping.add_argument(
        "overrides", nargs="*", metavar="key.path=value,value", help="values separated by commas are combined"
    )
    _add_processes(sweeping)
    comparing = command("compare", _compare, "compare the scores of finished runs")
    comparing.add_argument("runs", type=_path, nargs="+", metavar="run", help="run folders, such as runs/digits-*")
    for added in (sweeping, comparing):
        added.add_argument("--baseline", metavar="METHOD", help="what differences are to; the first method by default")
        added.add_argument("--out", type=_path, metavar="FOLDER", help="where to write the table and a chart")

    embedding = command("embed", _embed, "write the embeddings of a folder of images, or of a data set, into a file")
    embedding.add_argument("model", help="a run or exported folder, zoo:NAME, timm:NAME, torchvision:NAME or a file")
    embedding.add_argument("images", help="a folder, of which all images are taken, or the name of a data set")
    embedding.add_argument(
        "--to", type=_path, required=True, metavar="FILE", help="a new file whose name ends in .npz or .parquet"
    )
    embedding.add_argument(
        "--layer", default="features", help="features, projection, embedding, output, or a layer of the timm network"
    )
    embedding.add_argument(
        "--image-size",
        type=_count,
        metavar="PIXELS",
        help="the side to which images of files are brought; by default "
        "as the run scored them, or else what the network sees",
    )
    embedding.add_argument("--root", type=_path, default=Path("data"), help="where the data set lies; default: data")
    embedding.add_argument("--split", default="test", help="of the data set; default: test")
    embedding.add_argument("--labels", default="auto", help="of a folder: auto, folders or none; default: auto")
    _add_processes(embedding)
    _add_description(embedding)

    searching = command("neighbors", _neighbors, "print the nearest images of some, and write a page of them")
    searching.add_argument("embeddings", type=_path, help="a file that embed wrote")
    searching.add_argument(
        "images",
        nargs="*",
        metavar="image",
        help="images of the embeddings, by their names, or other files; some, if none",
    )
    searching.add_argument("--k", type=_count, default=8, metavar="N", help="how many of each; 8 unless said otherwise")
    searching.add_argument("--metric", choices=["cosine", "euclidean"], default="cosine", help="default: cosine")
    searching.add_argument(
        "--beside", type=_path, action="append", default=[], metavar="FILE", help="other embeddings of the same images"
    )
    searching.add_argument("--to", type=_path, metavar="HTML", help="the page; by default beside the embeddings")

    mapping = command("map", _map, "draw embeddings flat, with their images, those of several models side by side")
    mapping.add_argument("embeddings", type=_path, nargs="+", help="files that embed wrote, of the same images")
    mapping.add_argument("--method", default="tsne", help="tsne, umap (where it is installed) or pca; default: tsne")
    mapping.add_argument("--points", type=_count, default=2000, metavar="N", help="of more, so many are drawn; 2000")
    mapping.add_argument("--no-thumbnails", action="store_true", help="draw points alone")
    mapping.add_argument("--to", type=_path, metavar="PNG", help="the picture; by default beside the embeddings")

    exporting = command("export", _export, "write a finished run's model where timm, torch or ONNX load it")
    exporting.add_argument("run", type=_path, help="a run folder, such as runs/digits-transfer")
    exporting.add_argument("--to", type=_path, required=True, metavar="FOLDER", help="a new folder")
    exporting.add_argument("--format", default="timm", help="timm, torch or onnx; timm unless said otherwise")
    exporting.add_argument("--push-to-hub", metavar="NAME", help="upload it too, as owner/model on Hugging Face")

    suite = command("suite", _suite, "score models beside their teacher on many data sets")
    suite.add_argument(
        "models", nargs="+", metavar="MODEL", help="a run, an exported folder, timm:NAME or another tool's checkpoint"
    )
    suite.add_argument(
        "--on",
        nargs="+",
        required=True,
        metavar="NAME",
        help="small, kornblith, dinov2, data sets or folders of images",
    )
    suite.add_argument("--teacher", metavar="MODEL", help="the teacher of the first run that has one by default")
    suite.add_argument("--root", type=_path, default=Path("data"), metavar="FOLDER", help="where data sets lie; data")
    suite.add_argument("--out", type=_path, metavar="FOLDER", help="where results go; RUN/suite, or suite for others")
    suite.add_argument(
        "--probes", default="linear,knn", metavar="NAMES", help="linear,knn unless said otherwise; attentive"
    )
    suite.add_argument("--images", type=_count, metavar="N", help="at most so many of each split, for a first look")
    suite.add_argument("--no-baselines", action="store_true", help="without the untrained networks and raw pixels")
    _add_processes(suite)
    suite.add_argument("--download", action="store_true", help="let torchvision fetch what is missing, where it can")

    examining = command("doctor", _doctor, "load a teacher, run it on some images, and say what looks wrong")
    examining.add_argument("file", type=_path, help="a recipe with a teacher, or a file with teacher: and data: alone")
    examining.add_argument("overrides", **_OVERRIDES)  # type: ignore[arg-type]
    examining.add_argument(
        "--images", type=_count, default=500, metavar="N", help="how many; 500 unless said otherwise"
    )

    given, rest = parser.parse_known_args(arguments)
    # argparse gives a list of arguments what stands before the first option, and leaves what stands behind it.
    several = _SEVERAL.get(given.command, "overrides")
    if rest and (any(word.startswith("-") for word in rest) or not hasattr(given, several)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        getattr(given, several).extend([_path(word) for word in rest] if several in ("runs", "embeddings") else rest)
    return given


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes", type=_count, metavar="N", help="how many share the work on this machine, one a GPU; default: 1"
    )


def _add_description(parser: argparse.ArgumentParser) -> None:
    """What goes with a model that is no run, as in ``task.teacher``."""
    of = parser.add_argument_group("of a checkpoint of another tool, or a published network")
    of.add_argument("--backbone", metavar="NAME", help="timm's name of the network in a checkpoint, which needs it")
    of.add_argument("--format", help="the tool that saved a checkpoint; default: by its names")
    of.add_argument("--prefix", help="the name in a checkpoint below which its weights are, if they are there twice")
    of.add_argument("--stem", choices=["default", "cifar"], help="of the network in a checkpoint")
    of.add_argument("--mean", type=float, nargs="+", help="of each color, from 0 to 1, where it is not known or other")
    of.add_argument("--std", type=float, nargs="+", help="likewise")
    of.add_argument("--input-size", type=_count, metavar="PIXELS", help="the side of what the network sees")


def _described(given: argparse.Namespace) -> dict[str, Any]:
    described = {key: getattr(given, key) for key in ("backbone", "format", "prefix", "stem", "mean", "std")}
    return described | {"image_size": given.input_size}


def _path(text: str) -> Path:
    return Path(path_argument(text))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"cannot be {text!r}: write a whole number from 1 on")
    return int(text)


def _start(given: argparse.Namespace) -> None:
    """Where several processes are asked for, start them and end with them; in each of them do nothing.

    Raises:
        UserError: a launcher started another number of processes, or ``srun`` several of this program.
    """
    if given.processes is None:
        return
    launched = os.environ.get("WORLD_SIZE")
    if launched is not None:
        if launched != str(given.processes):
            raise UserError(f"--processes is {given.processes}, and a launcher has started {launched}: leave out one")
    elif given.processes > 1:
        from ssl_transfer.launching import start_processes, wrong_under_srun

        if wrong := wrong_under_srun():
            raise UserError(wrong)
        sys.exit(start_processes(given.processes, given.arguments))


def _run(given: argparse.Namespace) -> None:
    loaded = config.load(given.recipe, given.overrides)
    _start(given)
    with loading(_NAME):
        from ssl_transfer import recipe  # loads torch: only when the recipe is known to be good
        from ssl_transfer.context import leave

    recipe.run(loaded)
    leave()


def _score(given: argparse.Namespace) -> None:
    runs.read_recipe(given.run)
    loaded = config.load(given.run / "recipe.yaml", given.overrides)
    if not os.access(given.run, os.W_OK):  # known now rather than after hours of scoring
        raise UserError(f"cannot write into {given.run} (Permission denied): score a copy of the folder")
    _start(given)
    with loading(_NAME):
        from ssl_transfer.context import leave
        from ssl_transfer.rescore import rescore

    rescore(loaded, given.run, keep=any(override.startswith("score") for override in given.overrides))
    leave()


def _sweep(given: argparse.Namespace) -> None:
    with loading(_NAME):
        from ssl_transfer.tables import grid, sweep

    combinations = grid.plan(given.recipe, given.overrides, baseline=given.baseline)
    _start(given)
    say: Callable[[str], None] = print if speaks() else lambda text: None
    say(sweep.describe(combinations))
    failures = sweep.run(combinations, say)
    complete = [combination.folder for combination in combinations if combination.recipe.name not in failures]
    if speaks() and complete:
        _print_comparison(complete, given)
    if failures:
        raise sweep.Failed(failures, of=len(combinations))


def _compare(given: argparse.Namespace) -> None:
    from ssl_transfer.tables.compare import finished

    folders, left_out = finished(given.runs)
    print("".join(f"{sentence}\n" for sentence in left_out), end="", file=sys.stderr)
    _print_comparison(folders, given)


def _print_comparison(folders: Sequence[Path], given: argparse.Namespace) -> None:
    with loading(_NAME):
        from ssl_transfer.tables import compare, writing

    comparison = compare.compare(folders, baseline=given.baseline)
    print("\n" + writing.markdown(comparison), end="")
    if given.out is not None:
        print("\n" + "\n".join(str(path) for path in writing.write(comparison, given.out)))


def _embed(given: argparse.Namespace) -> None:
    from ssl_transfer.embeddings.table import check_name
    from ssl_transfer.teachers.section import named_teacher

    with user_mistakes():  # before torch is loaded
        check_name(given.to)
        named_teacher(given.model, **_described(given))
    _start(given)
    with loading(_NAME):
        from ssl_transfer.context import join_processes, leave
        from ssl_transfer.distributed import main_process_first
        from ssl_transfer.embeddings.embedder import load
        from ssl_transfer.embeddings.writing import embed_to_file

    state = join_processes()
    with user_mistakes():
        with main_process_first():  # one process downloads published weights
            model = load(given.model, device=state.device, **_described(given))
        where = {name: getattr(given, name) for name in ("root", "split", "labels", "image_size", "layer")}
        sentences = embed_to_file(model, given.images, given.to, **where)
    if speaks():
        print("\n".join([*model.report, *sentences]))
    leave()


def _neighbors(given: argparse.Namespace) -> None:
    with loading(_NAME):
        from ssl_transfer.embeddings import neighbors
        from ssl_transfer.embeddings.table import read_embeddings

    with user_mistakes():
        paths = [given.embeddings, *given.beside]
        tables = [read_embeddings(path) for path in paths]
        queries = neighbors.find_queries(tables[0], given.images)
        titled = []
        for title, table in zip(neighbors.model_names(tables, paths), tables, strict=True):
            asked = queries if table is tables[0] else neighbors.find_queries(table, [query.name for query in queries])
            found = neighbors.search(table, asked, given.k, given.metric)
            titled.append((title, table, found))
        for title, table, found in titled:
            print("\n".join([f"# {title}"] * (len(titled) > 1) + neighbors.in_words(table, found)))
        to = given.to or given.embeddings.with_name(f"{given.embeddings.stem}-neighbors.html")
        problem = neighbors.write_gallery(to, titled, given.metric)
    print("\n".join(filter(None, [f"{to} shows them", problem])))


def _map(given: argparse.Namespace) -> None:
    with loading(_NAME):
        from ssl_transfer.embeddings import maps
        from ssl_transfer.embeddings.neighbors import model_names
        from ssl_transfer.embeddings.table import read_embeddings

    with user_mistakes():
        maps.check_method(given.method)
        tables = [read_embeddings(path) for path in given.embeddings]
        rows = maps.common_rows(tables, given.points)
        if len(rows) < len(tables[0]):
            print(f"{len(rows):,} of {len(tables[0]):,} images are drawn; --points takes more")
        titled = list(zip(model_names(tables, given.embeddings), [table.select(rows) for table in tables], strict=True))
        to = given.to or given.embeddings[0].with_name(f"{given.embeddings[0].stem}-map.png")
        problem = maps.draw_map(
            to,
            titled,
            method=given.method,
            thumbnails=not given.no_thumbnails,
            before_each=lambda title: print(f"{given.method} of {len(rows):,} embeddings of {title} ...", flush=True),
        )
    print("\n".join(filter(None, [f"{to} shows the map", problem])))


def _export(given: argparse.Namespace) -> None:
    with loading(_NAME):
        from ssl_transfer.export.folder import export_run

    export_run(given.run, given.to, file_format=given.format, push_to_hub=given.push_to_hub)


def _suite(given: argparse.Namespace) -> None:
    from ssl_transfer.suite.asked import Asked

    with user_mistakes():  # before torch is loaded
        asked = Asked(
            models=tuple(given.models),
            on=tuple(given.on),
            teacher=given.teacher,
            root=given.root,
            out=given.out,
            probes=tuple(given.probes.split(",")),
            images=given.images,
            baselines=not given.no_baselines,
            download=given.download,
        )
    _start(given)
    with loading(_NAME):
        from accelerate import PartialState
        from rich.console import Console

        from ssl_transfer.report.terminal import print_suite
        from ssl_transfer.suite.run import run_suite

    results = run_suite(asked)
    if speaks():
        print_suite(results, Console(markup=False, emoji=False))
        print(f"{asked.folder / 'suite.json'} has every number with its protocol, report.html beside it the tables")
    PartialState().destroy_process_group()


def _doctor(given: argparse.Namespace) -> None:
    with loading(_NAME):
        from ssl_transfer.doctor import diagnose

    if diagnose(given.file, given.overrides, given.images):
        sys.exit(1)


def _validate(given: argparse.Namespace) -> None:
    loaded = config.load(given.recipe, given.overrides)
    with loading(_NAME):
        from ssl_transfer.checking import check

    problems, notes = check(loaded)
    if problems:
        raise UserError(config.told(given.recipe, problems))
    print(f"{given.recipe} is a valid recipe: {loaded.name}, {loaded.task.kind} into {loaded.model.backbone}")
    print("".join(f"{note}\n" for note in notes), end="")


def _show(given: argparse.Namespace) -> None:
    loaded = config.load(given.recipe, given.overrides)
    if given.views is not None:
        with loading(_NAME):
            from ssl_transfer import recipe

        recipe.show_views(loaded, given.views)
        images = loaded.data.root if loaded.data.is_of_files else loaded.data.dataset
        print(f"{given.views} shows images of {images} and their views")
        return
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
    shown = {row[0]: row for path in _recipes_below(given.folder) if (row := _recipe_row(path)) is not None}
    _print_table(
        ("recipe", "task", "backbone", "data"),
        list(shown.values()),
        empty="no recipes here; a clone of the project has recipes/",
    )
    found = sorted(path.parent for path in (given.folder / "runs").glob("*/run.json"))
    _print_table(
        ("run", "task", "backbone", "seed", "state", "scores of the model", "differs from the recipe"),
        [_run_row(path, given.folder) for path in found],
        empty="no runs yet",
    )


def _recipes_below(folder: Path) -> list[Path]:
    """Those of recipes/, and YAML files of one's own in the folder itself and the folders in it, runs apart."""
    own = [path for pattern in ("*.yaml", "*/*.yaml") for path in folder.glob(pattern)]
    elsewhere = [path for path in own if not {"runs", "recipes"} & set(path.relative_to(folder).parts[:-1])]
    return [*sorted((folder / "recipes").rglob("*.yaml")), *sorted(path for path in elsewhere if not _is_hidden(path))]


def _is_hidden(path: Path) -> bool:
    return (
        any(part.startswith(".") for part in path.parts if part not in (".", ".."))
        or (path.parent / "run.json").exists()
    )


def _recipe_row(path: Path) -> tuple[str, ...] | None:
    """What a recipe says; None of a file outside recipes/ that has not the keys of one, and is something else."""
    try:
        loaded = config.load(path)
    except UserError as error:
        if "recipes" not in path.parts and not config.looks_like_a_recipe(path):
            return None
        return str(path), f"not valid: {str(error).splitlines()[0]}", "", ""
    return str(path), loaded.task.kind, loaded.model.backbone, loaded.data.dataset


def _run_row(folder: Path, below: Path) -> tuple[str, ...]:
    try:
        loaded, info = runs.read_recipe(folder), runs.read_info(folder)
        scored = runs.read_scores(folder)
    except UserError as error:
        return str(folder), f"not readable: {str(error).splitlines()[0]}", "", "", "", "", ""
    assert info is not None
    state = "finished" if info.finished else f"{info.steps:,} of {info.total_steps:,} steps"
    own = [] if scored is None else [score for score in scored.scores if score.role in TRAINED]
    scores = ", ".join(f"{score.metric} {score.percent}" for score in own[:3]) + (", ..." if len(own) > 3 else "")
    return (
        str(folder),
        loaded.task.kind,
        loaded.model.backbone,
        str(loaded.seed),
        state,
        scores,
        _differences(loaded, below),
    )


def _differences(run: config.Recipe, below: Path) -> str:
    """What a run changed in the recipe of its name, if that is found; the seed has a column of its own."""
    for path in _recipes_below(below):
        try:
            recipe = config.load(path)
        except UserError:
            continue
        if recipe.name == run.name:
            changes = config.differences(config.identity(recipe), config.identity(run))
            told = [change.replace(" was ", " ").replace(", is ", " -> ") for change in changes]
            told = [change for change in told if not change.startswith("seed ")]
            return ", ".join(told[:3]) + (", ..." if len(told) > 3 else "")
    return ""


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]], empty: str) -> None:
    if not rows:
        print(empty)
        return
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
