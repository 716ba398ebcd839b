"""Who may import whom, and what checking a recipe costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ssl_transfer"

# The parts of the package, each a file or a folder below ssl_transfer/, from the ground up. A part imports parts of the
# lines above its own, and itself: so there is no circle, and no arrow points up.
LAYERS = (
    {
        "_version",
        "arithmetic",
        "errors",
        "files",
        "launching",
        "progress",
        "schedules",
        "distributed",
        "catalog",
        "zoo",
    },
    {"section", "losses", "models", "data", "probes", "program", "watch"},  # leaves: plain arguments, no recipe
    {"features", "teachers"},
    {"training"},
    {"tasks", "scores"},
    {"config"},
    {"runs", "processes"},
    {"context", "report"},
    {"building"},
    {"checking", "rescore", "evaluating", "doctor", "export", "embeddings", "suite"},
    {"recipe", "mteb"},
    {"tables", "evaluation", "distilling"},
    {"cli"},
    {"__main__", "__init__"},
)
LEAVES = {"losses", "models", "data", "probes", "distributed", "schedules"}


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """The parts of the package that a file imports, and whether for its types alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ssl_transfer":
            below = node.module.split(".")[1:]
            for name in [below[0]] if below else [alias.name for alias in node.names]:
                if name != "__version__":
                    yield name, id(node) in for_types
        elif isinstance(node, ast.Import):
            for parts in (alias.name.split(".") for alias in node.names):
                if parts[0] == "ssl_transfer" and len(parts) > 1:
                    yield parts[1], id(node) in for_types


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_down():
    height = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100 and {part_of(path) for path in files} == height.keys()
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in files
        for imported, for_types in imports_of(path)
        if imported != part_of(path)
        and height[imported] >= height[part_of(path)]
        # A teacher may be a recipe of its own, which is made of sections that may have a teacher.
        and not (for_types and (part_of(path), imported) == ("teachers", "config"))
    ]
    assert not wrong, "\n".join(wrong)


def test_leaves_know_nothing_of_the_project_but_plain_tables():
    for path in (path for path in PACKAGE.rglob("*.py") if part_of(path) in LEAVES):
        assert {part for part, _ in imports_of(path)} <= {part_of(path), "arithmetic", "catalog", "files"}, path


def test_eval_programs_know_no_trainer():
    programs = sorted((ROOT / "eval").glob("*.py"))
    assert programs
    for program in programs:
        assert {part for part, _ in imports_of(program)} <= {"evaluation", "scores"}, program


def test_checking_a_recipe_loads_nothing_heavy():
    recipe = ROOT / "recipes" / "digits" / "transfer.yaml"
    code = (
        "import sys, ssl_transfer.cli, ssl_transfer.config, ssl_transfer.runs, ssl_transfer.scores\n"
        f"ssl_transfer.config.load({str(recipe)!r})\n"
        "sys.exit(' '.join({'torch', 'timm', 'lightly', 'sklearn', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_of_the_programs_loads_no_torch():
    code = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    for program in sorted((ROOT / "eval").glob("*.py")):
        done = subprocess.run([sys.executable, "-c", code, program, "--help"], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0 and "usage: " in done.stdout, done.stderr


def test_nothing_imports_what_only_some_systems_have():
    """macOS has fcntl and no sched_getaffinity; Windows has neither, and is told apart by its name at the start."""
    some = {"fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog", "spwd"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not (some & {name.split(".")[0] for name in names}) or id(node) in guarded, path
        assert "/proc/" not in path.read_text(), path
    code = (
        "import os, sys, signal, psutil, warnings\n"  # psutil has a file for each system
        "warnings.simplefilter('ignore')\n"
        f"sys.modules.update(dict.fromkeys({some}))\n"
        "for name in ('sched_getaffinity', 'posix_fallocate', 'memfd_create'): vars(os).pop(name, None)\n"
        "for name in ('SIGHUP', 'SIGKILL', 'pthread_sigmask'): vars(signal).pop(name, None)\n"
        "import importlib, pathlib, pkgutil, ssl_transfer, tempfile\n"
        "for module in pkgutil.walk_packages(ssl_transfer.__path__, 'ssl_transfer.'):\n"
        "    if module.name not in ('ssl_transfer.__main__', 'ssl_transfer.mteb'):\n"
        "        importlib.import_module(module.name)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    ssl_transfer.files.write_text(pathlib.Path(folder) / 'a', 'b')\n"
        "    with ssl_transfer.runs.locks.locked(pathlib.Path(folder)): pass\n"
        "assert ssl_transfer.launching.cores() >= 1"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
