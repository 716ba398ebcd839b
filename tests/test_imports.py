"""Who may import whom, and what a bare import costs."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ssl_transfer"

# Parts of the package -> the parts they may import. A part is a folder or a file below ssl_transfer/.
ALLOWED = {
    "losses": set(),
    "models": set(),
    "data": set(),
    "probes": set(),
    "distributed": set(),
    "schedules": set(),
    "optim": set(),
    "errors": set(),
    "files": set(),
    "progress": set(),
    "_version": set(),
    "config": {"errors", "data", "losses"},  # their tables of presets and weights, which load no torch
    "runs": {"config", "errors", "files"},
    "checkpoint": {"models", "files"},
    "tasks": {"losses", "models", "data", "distributed"},
    "engine": {"checkpoint", "errors", "files", "progress"},
    "scoring": {"config", "files", "probes"},
    "evaluation": {"runs", "checkpoint", "data", "distributed", "errors", "models", "probes"},
    "context": {"config", "errors"},
    "model_building": {"config", "checkpoint", "data", "models"},
    "task_building": {"config", "losses", "tasks", "data", "models"},
    "teachers": {"config", "runs", "checkpoint", "context", "data", "model_building", "models"},
    "cli": {"config", "runs", "errors", "recipe"},
    "__main__": {"cli"},
    "__init__": {"_version"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ssl_transfer":
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found |= {parts[1] for parts in names if parts[0] == "ssl_transfer" and len(parts) > 1}
    return found - {"__version__"}


def test_imports_point_one_way():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 30
    wrong = [
        f"{path.relative_to(PACKAGE.parent)} imports {part}"
        for path in files
        if part_of(path) != "recipe"
        for part in imported_parts(path) - {part_of(path)} - ALLOWED[part_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_eval_programs_know_no_trainer():
    programs = sorted((PACKAGE.parent / "eval").glob("*.py"))
    assert programs
    for program in programs:
        assert not imported_parts(program) & {"engine", "tasks", "recipe", "config"}, program


def test_a_bare_import_loads_nothing_heavy():
    code = (
        "import sys, ssl_transfer, ssl_transfer.losses, ssl_transfer.models, ssl_transfer.data\n"
        "sys.exit(' '.join({'torch', 'timm', 'lightly', 'sklearn', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
