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
    "config": {"columns", "errors", "data", "losses", "models"},  # their tables, which load no torch
    "runs": {"config", "errors", "files"},
    "best_on_test": {"columns", "data", "evaluation", "measures", "models", "probes"},
    "checkpoint": {"models", "files"},
    "tasks": {"losses", "models", "data", "distributed"},
    "engine": {"checkpoint", "errors", "files", "progress"},
    "columns": set(),
    "teacher_memory": {"data", "files"},
    "recall": {"config", "context", "data", "feature_cache", "models", "teacher_memory"},
    "views_sheet": {"data"},
    "feature_cache": {"files"},
    "measures": {"columns", "data", "distributed", "models", "probes"},
    "evaluation": {"data", "distributed", "feature_cache", "measures", "models", "probes"},
    "scoring": {"config", "files", "measures"},
    "monitoring": {"data", "distributed", "evaluation", "models", "probes"},
    "eval_program": {
        *("checkpoint", "context", "data", "errors", "evaluation", "files", "measures", "models", "probes", "runs"),
    },
    "context": {"config", "errors"},
    "model_building": {"config", "checkpoint", "data", "models"},
    "task_building": {"config", "losses", "tasks", "data", "models", "schedules"},
    "teachers": {"config", "runs", "checkpoint", "context", "models"},
    "export": {"config", "runs", "checkpoint", "errors", "files", "models", "teachers"},
    "doctor": {"config", "context", "data", "errors", "models", "probes", "recipe", "runs", "teachers"},
    "cli": {"doctor", "config", "runs", "errors", "recipe", "export", "tables"},
    "report": {"config", "runs", "errors", "files"},
    "tables": {"columns", "config", "distributed", "engine", "errors", "files", "recipe", "report", "runs"},
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
