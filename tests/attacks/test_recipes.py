"""Whatever is written into a recipe, reading it gives a recipe or a sentence."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_transfer import config
from ssl_transfer.errors import UserError

pytestmark = pytest.mark.slow

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
SAME_EVERY_TIME = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**30]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "..", "~", "$HOME", "digits", "simclr", "a\x00b", "a\nb", "1e3", "no", "recipe.yaml", "/"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values below ``tree``."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [found for key, value in children for found in places(value, (*path, key))]


def parent_of(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Path, Any]:
    """A recipe of the project, in which some values were replaced, moved, renamed, wrapped or taken out."""
    source = draw(st.sampled_from(RECIPES))
    tree = yaml.safe_load(source.read_text())
    for _ in range(draw(st.integers(1, 3))):
        found = places(tree)
        if not found:
            break
        path = draw(st.sampled_from(found))
        parent, key = parent_of(tree, path), path[-1]
        match draw(st.sampled_from(["replace", "replace", "remove", "wrap", "rename", "copy"])):
            case "replace":
                parent[key] = draw(VALUES)
            case "remove":
                del parent[key]
            case "wrap":
                parent[key] = [parent[key]]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.text(max_size=8))] = parent.pop(key)
            case "copy":
                other = draw(st.sampled_from(found))
                parent[key] = copy.deepcopy(parent_of(tree, other)[other[-1]])
    return source, tree


@pytest.fixture
def recipe_file(tmp_path, monkeypatch) -> Path:
    """Where recipes are written, beside all those of the project, which may be teachers."""
    for source in RECIPES:
        shutil.copy(source, tmp_path / source.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mutated.yaml"


def read(path: Path) -> None:
    """A recipe that is dumped and read as itself, or a sentence."""
    try:
        recipe = config.load(path)
    except UserError as error:
        assert str(error).strip()
        return
    path.write_text(config.dump(recipe), encoding="utf-8")
    again = config.load(path)
    assert again == recipe and config.identity_hash(again) == config.identity_hash(recipe)


@SAME_EVERY_TIME
@given(found=mutated())
def test_mutated_values(recipe_file, found):
    text = yaml.safe_dump(found[1], sort_keys=False, allow_unicode=True)
    recipe_file.write_bytes(text.encode("utf-8", "surrogatepass"))
    read(recipe_file)


@SAME_EVERY_TIME
@given(source=st.sampled_from(RECIPES), junk=st.binary(max_size=8) | st.text(max_size=8), data=st.data())
def test_mutated_text(recipe_file, source, junk, data):
    content = source.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    removed = data.draw(st.integers(0, 20))
    inserted = junk if isinstance(junk, bytes) else junk.encode("utf-8", "surrogatepass")
    recipe_file.write_bytes(content[:start] + inserted + content[start + removed :])
    read(recipe_file)
