"""What a public docstring has to say, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ssl_transfer"
RAISED_ON_PURPOSE = {"ValueError", "FileNotFoundError", "UserError", "PermissionError"}


def public_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods that a caller may use, by where they are."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        scopes = [("", tree), *((f"{node.name}.", node) for node in tree.body if isinstance(node, ast.ClassDef))]
        for scope, owner in scopes:
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not scope.startswith("_"):
                    yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {scope}{node.name}", node


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
    found = [(where, node) for where, node in public_functions() if raises(node)]
    assert len(found) > 30
    missing = [where for where, node in found if "Raise" not in (ast.get_docstring(node) or "")]
    assert not missing, "\n".join(missing)
