"""The pages keep their word: their Python runs, their notebooks run, and their links lead somewhere."""

import json
import re
import shutil
import textwrap

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ssl_transfer import config
from tests.test_config import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "recipes" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(?P<reason><!-- not run: [^\n]+ -->\n)? *```python\n(?P<code>.*?)```", re.S)
BLOCKS = [(page, found) for page in PAGES for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of photos to work in, as the pages speak of."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "photos" / ("wren" if number % 2 else "owl")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)


def test_there_is_python_in_the_pages():
    assert len([found for _, found in BLOCKS if not found["reason"]]) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "code"),
    [
        pytest.param(page, found["code"], id=f"{page.stem}-{found.start()}")
        for page, found in BLOCKS
        if not found["reason"]
    ],
)
def test_python_in_the_pages_runs(page, code, photos):
    exec(compile(textwrap.dedent(code), str(page), "exec"), {})  # noqa: S102


RECIPES = [
    (page, code) for page in PAGES for code in re.findall(r"```yaml\n(name: .*?)```", page.read_text("utf-8"), re.S)
]


@pytest.mark.parametrize(("page", "recipe"), RECIPES, ids=[page.stem for page, _ in RECIPES])
def test_recipes_in_the_pages_are_valid(page, recipe, tmp_path):
    shutil.copy(ROOT / "recipes" / "cifar10" / "simclr.yaml", tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipe)
    config.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        there = page if not target else page.parent / target
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and there.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor[1:] in anchors, f"{page.name} links to {target}{anchor}; there are {anchors}"


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    cells = [
        "".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    lengths = re.compile(r"^((?:TEACHER_EPOCHS, STUDENT_EPOCHS|STEPS) = )[\d, ]+$", re.M)
    assert lengths.search(cells[0])
    shorter = lengths.sub(lambda found: found[1] + ("2, 2" if "," in found[1] else "5"), cells[0])
    names: dict = {}
    for cell in [shorter, *cells[1:]]:
        exec(compile(cell, notebook.name, "exec"), names)  # noqa: S102
