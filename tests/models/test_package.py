"""The public names of ``ssl_transfer.models`` have docstrings that say what they raise, and lines in the docs."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_transfer import models

ROOT = Path(__file__).parents[2]
DOCS = "".join((ROOT / "docs" / page).read_text() for page in ("teachers.md", "backbones.md"))


@pytest.mark.parametrize("name", models.__all__)
def test_a_public_name_has_a_docstring_and_a_line_in_the_docs(name):
    described = getattr(models, name)
    assert described.__doc__ and len(inspect.getdoc(described)) > 40
    assert re.search(rf"^\* `{name}`", DOCS, re.MULTILINE)


def test_public_names_are_sorted():
    assert list(models.__all__) == sorted(models.__all__)


def public_functions(tree: ast.AST, owner: ast.ClassDef | None = None) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Functions and methods that may be called from outside, each with the docstring that describes it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, node)
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            described = owner if owner is not None and node.name == "__init__" else node
            yield f"{owner.name}.{node.name}" if owner else node.name, node, ast.get_docstring(described) or ""


@pytest.mark.parametrize("folder", ["models", "teachers"])
def test_what_is_raised_on_purpose_is_in_the_docstring(folder):
    checked, silent = 0, []
    for path in sorted((ROOT / "ssl_transfer" / folder).rglob("*.py")):
        for name, function, docstring in public_functions(ast.parse(path.read_text())):
            if any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(function)):
                checked += 1
                silent += [f"{path.name}: {name}"] if "Raises:" not in docstring else []
    assert checked and not silent, silent
