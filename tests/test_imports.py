"""Who may import whom, and what a bare import costs."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ssl_transfer"

# Parts of the package -> the parts they may import. A part is a file or a folder below ssl_transfer/; the files of a
# folder that is named file by file here are parts of their own, and a folder named whole may use all of its own files.
ALLOWED = {
    "losses": set(),
    "models": set(),
    "data": set(),
    "probes": set(),
    "distributed": set(),
    "errors": set(),
    "files": set(),
    "_version": set(),
    "config": {"scoring.columns", "errors", "data", "losses", "models"},  # their tables, which load no torch
    "locks": set(),
    "runs": {"config", "errors", "files", "locks"},
    "checkpoint": {"models", "files"},
    "tasks": {"losses", "models", "data", "distributed"},
    "training.schedules": set(),
    "training.optim": set(),
    "training.progress": set(),
    "training.teacher_memory": {"data", "files"},
    "training.engine": {"checkpoint", "errors", "files", "training.progress"},
    "context": {"config", "errors"},
    "building.data": {"config", "context", "data"},
    "building.model": {"config", "checkpoint", "data", "models"},
    "building.origin": {"building.data", "config", "errors"},
    "building.teacher": {"config", "runs", "checkpoint", "context", "models"},
    "building.task": {"config", "losses", "tasks", "data", "models", "training.schedules"},
    "building.optimizer": {"config", "training.optim", "training.schedules"},
    "building.recall": {"config", "context", "data", "scoring.feature_cache", "models", "training.teacher_memory"},
    "scoring.columns": set(),
    "scoring.scores": {"files", "probes"},
    "scoring.feature_cache": {"files"},
    "scoring.features": {"data", "distributed", "models", "probes", "scoring.feature_cache"},
    "scoring.subject": {"data", "models", "probes", "scoring.features", "scoring.scores"},
    "scoring.augmented": {"data", "distributed", "scoring.subject"},
    "scoring.measures": {
        *("data", "models", "probes"),
        *("scoring.augmented", "scoring.columns", "scoring.scores", "scoring.subject"),
    },
    "scoring.kinds": {"config", "scoring.features", "scoring.measures", "scoring.scores", "scoring.subject"},
    "scoring.check": {"config", "data", "probes", "scoring.measures", "scoring.subject"},
    "scoring.table": {"scoring.scores"},
    "scoring.monitor": {"data", "distributed", "models", "probes", "scoring.features"},
    "scoring.best_on_test": {"data", "models", "probes", "scoring.columns", "scoring.features", "scoring.scores"},
    "scoring.program": {
        *("building.data", "checkpoint", "context", "data", "errors", "files", "models", "probes", "runs"),
        *("scoring.features", "scoring.scores", "scoring.subject"),
    },
    "views_sheet": {"data"},
    "export": {"config", "runs", "building.teacher", "checkpoint", "errors", "files", "models", "scoring.scores"},
    "doctor": {
        *("building.data", "building.teacher", "config", "context", "data", "errors", "models", "probes", "runs"),
    },
    "cli": {"doctor", "config", "distributed", "runs", "errors", "recipe", "export", "tables"},
    "report": {"config", "runs", "errors", "files", "scoring.scores", "training.progress"},
    "tables": {
        *("config", "distributed", "errors", "files", "recipe", "report", "runs"),
        *("scoring.columns", "training.engine"),
    },
    "__main__": {"cli"},
    "__init__": {"_version"},
}
NAMED_FILE_BY_FILE = {part.split(".")[0] for part in ALLOWED if "." in part}


def part_of(names: Sequence[str]) -> str:
    """The part that a module belongs to, given by its names below ssl_transfer."""
    return ".".join(names[:2] if names[0] in NAMED_FILE_BY_FILE else names[:1])


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ssl_transfer":
            below = node.module.split(".")[1:]
            # what is imported from a folder may be one of its files
            found |= {part_of([*below, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            found |= {part_of(parts[1:]) for parts in names if parts[0] == "ssl_transfer" and len(parts) > 1}
    return found - {"__version__"}


def test_imports_point_one_way():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 30
    parts = {path: part_of(path.relative_to(PACKAGE).with_suffix("").parts) for path in files}
    folders_themselves = {f"{folder}.__init__": set[str]() for folder in NAMED_FILE_BY_FILE}
    allowed = ALLOWED | folders_themselves
    wrong = [
        f"{path.relative_to(PACKAGE.parent)} imports {imported}"
        for path, part in parts.items()
        if part != "recipe"
        for imported in imported_parts(path) - {part} - allowed[part]
    ]
    assert not wrong, "\n".join(wrong)
    assert set(parts.values()) - {"recipe"} <= allowed.keys()


def test_eval_programs_know_no_trainer():
    programs = sorted((PACKAGE.parent / "eval").glob("*.py"))
    assert programs
    for program in programs:
        assert {part.split(".")[0] for part in imported_parts(program)} <= {"scoring"}, program


def test_a_bare_import_loads_nothing_heavy():
    code = (
        "import sys, ssl_transfer, ssl_transfer.losses, ssl_transfer.models, ssl_transfer.data\n"
        "sys.exit(' '.join({'torch', 'timm', 'lightly', 'sklearn', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
