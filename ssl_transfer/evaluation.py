"""The command line of the programs in ``eval/``: what they are pointed at, and what they are asked for.

A program is this and one kind of score. It runs alone or under ``accelerate launch``; several processes share the work
of computing features and print the same numbers as one. Loads no torch before the command line is understood.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ssl_transfer import config
from ssl_transfer.errors import UserError
from ssl_transfer.program import ends_in_a_sentence, loading
from ssl_transfer.scores.base import ScoreSection
from ssl_transfer.section import path_argument
from ssl_transfer.teachers.section import NAMED_SOURCES


def evaluate(program: str, section: type[ScoreSection]) -> None:
    """Read the command line, get the features it names, print the scores of ``section`` and write them with ``--json``.

    The program's options are the section's keys, so their defaults and what they may be stand in one place. Several
    processes share the work of computing features; the main one measures, or all where the section asks for it. A
    user's mistake is one message and exit code 2.
    """
    given = _parser(program, section).parse_args()
    name = Path(sys.argv[0]).name
    with ends_in_a_sentence(name):
        asked, source = _asked(section, given), _source(given)
        with loading(name):
            from ssl_transfer.evaluating import measure

        measure(program, asked, source, given)


def _options(section: type[ScoreSection]) -> dict[str, FieldInfo]:
    """The section's keys that a program has options for; the layer is one of every program."""
    return {key: field for key, field in section.model_fields.items() if key not in ("kind", "layer")}


def _add_option(parser: argparse.ArgumentParser, section: type[ScoreSection], key: str, field: FieldInfo) -> None:
    name, default = key.replace("_", "-"), field.default
    words = field.description or ""
    if isinstance(default, bool):  # an option that says the opposite of the default
        names = [f"--no-{name}" if default else f"--{name}", *filter(None, [section.flags.get(key)])]
        parser.add_argument(*names, dest=key, action="store_const", const=not default, help=words)
        return
    many = any(get_origin(kind) is tuple for kind in (field.annotation, *get_args(field.annotation)))
    several = {"nargs": "*"} if many else {}
    choices = [repr(choice).strip("'") for choice in get_args(field.annotation)]
    if get_origin(field.annotation) is Literal:
        words += f"; one of {', '.join(choices)}"
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    parser.add_argument(
        f"--{name}",
        dest=key,
        type=_value,
        metavar=name.rpartition("-")[2].upper(),
        help=f"{words}; default: {shown}" if shown not in (None, "") else words,
        **several,  # type: ignore[arg-type]
    )


def _path(text: str) -> Path:
    return Path(path_argument(text))


def _value(text: str) -> Any:
    """A number or a word, as in a recipe."""
    return config.parse(text)


def _asked(section: type[ScoreSection], given: argparse.Namespace) -> ScoreSection:
    """The section as the options fill it.

    Raises:
        UserError: with every option that cannot be.
    """
    values = {key: getattr(given, key) for key in _options(section) if getattr(given, key) is not None}
    try:
        return section(**values)
    except ValidationError as error:
        problems = config.problems_of(error, values, section)
        raise UserError(
            "; ".join(f"--{problem}" if problem[:1].islower() else problem for problem in problems)
        ) from None


def _parser(program: str, section: type[ScoreSection]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=program, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=path_argument, nargs="?", help="a run or exported folder, such as runs/digits-transfer"
    )
    parser.add_argument("--zoo", metavar="NAME", help="a model that comes with the package instead")
    parser.add_argument("--timm", metavar="NAME", help="a timm network with its pretrained weights")
    parser.add_argument("--torchvision", metavar="NAME", help="a torchvision network with its pretrained weights")
    parser.add_argument(
        "--file", type=path_argument, metavar="FILE", help="a checkpoint of another tool; needs --backbone"
    )
    parser.add_argument("--backbone", metavar="NAME", help="timm's name of the network in --file")
    parser.add_argument("--format", default="auto", help="the tool that saved --file; default: by its names")
    parser.add_argument("--prefix", help="the name in --file below which its weights are, if they are there twice")
    parser.add_argument("--stem", default="default", choices=["default", "cifar"], help="of the network in --file")
    parser.add_argument("--mean", type=float, nargs="+", help="of a published network, where it is not known or other")
    parser.add_argument("--std", type=float, nargs="+", help="likewise")
    parser.add_argument("--input-size", type=int, metavar="PIXELS", help="likewise: the side of what the network sees")
    parser.add_argument(
        "--features", type=path_argument, metavar="FILE", help="an npz file: train_x, train_y, test_x, test_y"
    )
    parser.add_argument("--dataset", help="default: the one that the run was trained on")
    parser.add_argument("--root", type=_path, help="where the data set lies; default: where the run found it")
    parser.add_argument("--image-size", type=int, help="the side to which the images of files are brought")
    parser.add_argument(
        "--layer", default="features", help="features, projection, embedding, output, or a layer of the timm network"
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=["float32", "bfloat16"],
        help="in which the network computes features; bfloat16 is faster where the hardware multiplies it",
    )
    parser.add_argument("--cache", type=_path, metavar="FOLDER", help="where features are kept; default: in the run")
    parser.add_argument("--json", type=_path, metavar="FILE", help="write the numbers with their protocol")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn: held-out images, few labels, orders")
    if section.needs_teacher:
        parser.add_argument("--teacher", required=True, help="a run folder, timm:NAME or an npz file of features")
    for key, field in _options(section).items():
        _add_option(parser, section, key, field)
    return parser


def _source(given: argparse.Namespace) -> str:
    """What one of the arguments names, as :func:`load_features` takes it."""
    named = {
        name: getattr(given, name) for name in ("run", *NAMED_SOURCES, "features") if getattr(given, name) is not None
    }
    if len(named) != 1:
        raise UserError(
            "name one of a run or exported folder, --zoo NAME, --timm NAME, --torchvision NAME, --file FILE or "
            f"--features FILE; given: {', '.join(named) or 'none'}"
        )
    ((kind, value),) = named.items()
    if kind == "features" and not value.endswith(".npz"):
        raise UserError(f"{value} is no npz file of features; save one with numpy.savez")
    return f"{kind}:{value}" if kind in NAMED_SOURCES else value
