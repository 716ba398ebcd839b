"""What is released: built offline, installed by itself, and run outside the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ssl_transfer import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("ssl_transfer", "benchmarks", "docs", "eval", "recipes", "tests")
FILES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml")
RECIPE = Path("digits") / "simclr.yaml"


def call(*command: str | Path, folder: Path) -> str:
    """What a command prints, run in ``folder`` by a person whose environment names no other code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> dict[str, Path]:
    """The source distribution and the wheel that is built from it, by kind."""
    source, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in FOLDERS:  # a copy, since setuptools builds in the place, and finds what it built before
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder=source)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module", params=["sdist", "wheel"])
def installed(request, released, tmp_path_factory) -> Path:
    """An environment in which the release alone is installed; what it needs is found where the tests find it."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    found = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("".join(f"{entry}\n" for entry in found))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall"]
    call(*pip, "install", *offline, released[request.param], folder=folder)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(released):
    with zipfile.ZipFile(released["wheel"]) as wheel:
        files = {name for name in wheel.namelist() if not name.startswith(f"ssl_transfer-{__version__}.dist-info/")}
    package = {path for path in (ROOT / "ssl_transfer").rglob("*") if path.suffix in (".py", ".j2", ".typed")}
    package |= {path for path in (ROOT / "ssl_transfer" / "zoo").rglob("*.*") if path.suffix != ".pyc"}
    assert files == {str(path.relative_to(ROOT)) for path in package}
    assert {"ssl_transfer/py.typed", "ssl_transfer/report/page.html.j2"} < files


def test_the_source_distribution_holds_what_is_built_and_nothing_else(released):
    with tarfile.open(released["sdist"]) as sdist:
        files = {Path(*Path(name).parts[1:]) for name in sdist.getnames()}
    written = {"PKG-INFO", "setup.cfg", "ssl_transfer.egg-info"}  # by setuptools
    above = {path.parts[0] for path in files if path.parts} - written
    assert above == {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "ssl_transfer"}


def test_only_the_package_is_installed(installed):
    (packages,) = installed.glob("lib/python*/site-packages")
    found = {path.name for path in packages.iterdir()}
    assert found == {"dependencies.pth", "ssl_transfer", f"ssl_transfer-{__version__}.dist-info"}
    where = call(installed / "bin" / "python", "-c", "import ssl_transfer as s; print(s.__file__)", folder=installed)
    assert Path(where.strip()).is_relative_to(packages)


def test_the_program_runs_outside_the_checkout(installed, recipes, tmp_path):
    shutil.copy(recipes / RECIPE, tmp_path)
    program = installed / "bin" / "ssl-transfer"
    assert call(program, "--version", folder=tmp_path).strip() == __version__
    said = call(program, "validate", RECIPE.name, folder=tmp_path)
    assert said.startswith(f"{RECIPE.name} is a valid recipe: digits-simclr")
