"""Write ``keys.md``: every key of a recipe with its type, its default and its meaning, from the sections themselves.

    python docs/keys.py

The meaning of a key is its description, or the comment behind it in the source, so neither can be forgotten here.
"""

import inspect
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from ssl_transfer.config.data import Augment, Data
from ssl_transfer.config.model import Model
from ssl_transfer.config.schema import Recipe
from ssl_transfer.config.training import Lars, Optim, Train
from ssl_transfer.scores import KINDS
from ssl_transfer.tasks.sections import Task
from ssl_transfer.teachers.section import Teacher

PAGE = Path(__file__).with_name("keys.md")

HEAD = """\
# Every key of a recipe

A recipe has eight keys: `name seed data model task optim train score`. This page is made from the code by
`python docs/keys.py`; `ssl-transfer validate RECIPE` answers a wrong key with the ones that are allowed. *null* means
that the key may be left out. On the command line a key is written with dots: `optim.lr=3e-4`, `score=[{kind: knn}]`.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_section("The recipe", Recipe, level=2)]
    for title, section in (("data", Data), ("data.augment", Augment), ("model", Model)):
        parts += _section(title, section, level=2)
    parts += ["## task\n", "`kind` decides which other keys a task has.\n"]
    parts += [part for kind in _members(Task) for part in _section(f"kind: {_kind(kind)}", kind, level=3)]
    parts += _section("task.teacher", Teacher, level=2)
    for title, section in (("optim", Optim), ("optim.lars", Lars), ("train", Train)):
        parts += _section(title, section, level=2)
    parts += ["## score\n", "A list; each entry is of one `kind`. docs/evaluation.md defines the protocols.\n"]
    parts += [part for kind in KINDS for part in _section(f"kind: {_kind(kind)}", kind, level=3)]
    return "\n".join(parts)


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """What each key of a section means, empty where the source says nothing."""
    found: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            found |= dict(_comments(owner))
    described = {name: field.description for name, field in section.model_fields.items() if field.description}
    return {name: described.get(name) or found.get(name, "") for name in section.model_fields}


def _members(union: Any) -> Iterator[type[BaseModel]]:
    """The sections that a union of sections is made of."""
    for member in get_args(union):
        if inspect.isclass(member) and issubclass(member, BaseModel):
            yield member
        else:
            yield from _members(member)


def _kind(section: type[BaseModel]) -> str:
    return str(get_args(section.model_fields["kind"].annotation)[0])


def _section(title: str, section: type[BaseModel], level: int) -> list[str]:
    lines = [f"{'#' * level} {title}\n", f"{_first_paragraph(section)}\n"]
    schema, said = section.model_json_schema(), meanings(section)
    own = schema["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    rows = [
        f"| `{name}` | {_type(own['properties'][name], schema)} | {_default(section, name)} | {_cell(said[name])} |"
        for name in section.model_fields
        if name != "kind"
    ]
    return (
        [*lines, "\n".join(["| key | what it takes | default | meaning |", "|---|---|---|---|", *rows, ""])]
        if rows
        else lines
    )


def _first_paragraph(section: type[BaseModel]) -> str:
    text = inspect.cleandoc(section.__doc__ or "").partition("\n\n")[0]
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", " ".join(text.split()).replace("``", "`"))


def _comments(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The comment behind each annotated name of a class, and those on the lines of their own right below it."""
    source = textwrap.dedent(inspect.getsource(section))
    name, depth, fresh = None, 0, True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and fresh and depth == 0 and token.start[1] == 4:
            name, said = token.string, ""
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
        if token.type == tokenize.COMMENT and name is not None:
            said = f"{said} {token.string.lstrip('# ')}".strip()
            yield name, said  # the last one is the whole
        elif token.type == tokenize.NEWLINE:
            fresh = True
            continue
        if token.type not in (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT):
            fresh = False


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """In a few words, the values that a key takes."""
    if "anyOf" in schema or "oneOf" in schema:
        members = [member for member in schema.get("anyOf", schema.get("oneOf")) if member.get("type") != "null"]
        if len(members) > 5 and all("$ref" in member for member in members):
            return "a section, see below"
        return " or ".join(dict.fromkeys(_type(member, whole) for member in members))
    if "$ref" in schema:
        target = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        return "a section" if "properties" in target else _type(target, whole)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{_yaml(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = schema.get("items") or {}
        if "prefixItems" in schema:
            return "two numbers"
        return (
            f"a list of {_type(items, whole)}s"
            if "$ref" not in items and "oneOf" not in items
            else "a list of sections"
        )
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true`, `false`"}
    text = words.get(schema.get("type", ""), "a section")
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema and abs(schema[key]) < 2**31]
    return " ".join([text, ", ".join(limits)]).strip()


def _default(section: type[BaseModel], name: str) -> str:
    field = section.model_fields[name]
    return "required" if field.is_required() else f"`{_yaml(field.default)}`"


def _yaml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value) if not isinstance(value, str) else value


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
