"""What a public docstring has to say, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ssl_transfer"
RAISED_ON_PURPOSE = {"ValueError", "FileNotFoundError", "UserError", "PermissionError", "OSError", "Interrupted"}
MAKING = {"__init__", "__post_init__", "__new__"}


def public_functions() -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Functions and methods that a caller may use: where they are, and what is said of them.

    What is said of a class is said of making one.
    """
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        scopes = [("", tree), *((f"{node.name}.", node) for node in tree.body if isinstance(node, ast.ClassDef))]
        for scope, owner in scopes:
            for node in owner.body:
                if not isinstance(node, ast.FunctionDef) or scope.startswith("_"):
                    continue
                if node.name in MAKING or not node.name.startswith("_"):
                    said = (ast.get_docstring(node) or "") + (ast.get_docstring(owner) or "") * (node.name in MAKING)
                    yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {scope}{node.name}", node, said


def raises(function: ast.FunctionDef) -> bool:
    """Whether the function itself raises what a user's mistake is answered with."""
    return any(
        isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in RAISED_ON_PURPOSE
        for node in ast.walk(function)
    )


def test_what_a_function_raises_on_purpose_is_in_its_docstring():
    found = [(where, said) for where, node, said in public_functions() if raises(node)]
    assert len(found) > 100
    missing = [where for where, said in found if "Raise" not in said]
    assert not missing, "\n".join(missing)
