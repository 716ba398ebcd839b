"""Which folder belongs to which recipe."""

import pytest

from ssl_transfer import config, runs
from ssl_transfer.errors import UserError
from tests.test_config import PRETRAIN


@pytest.fixture
def load(tmp_path):
    (tmp_path / "small.yaml").write_text(PRETRAIN)
    return lambda *overrides: config.load(tmp_path / "small.yaml", [f"train.runs={tmp_path / 'runs'}", *overrides])


def test_the_same_recipe_finds_its_folder_again(load):
    folder, notice = runs.claim(load())
    assert folder.name == "small" and notice is None
    assert runs.claim(load("train.log_every=7")) == (folder, None)
    assert runs.read_recipe(folder) == load("train.log_every=7")


def test_another_recipe_of_the_same_name_goes_beside_it_and_says_why(load):
    plain, _ = runs.claim(load())
    changed = load("optim.lr=1e-4")
    folder, notice = runs.claim(changed)
    assert folder.name == f"small-{config.identity_hash(changed)}" and folder != plain
    assert "optim.lr was 0.002, is 0.0001" in notice
    assert runs.claim(changed)[0] == folder
    assert runs.read_recipe(plain) == load()


def test_a_folder_of_something_else_is_left_alone(load, tmp_path):
    theirs = tmp_path / "runs" / "small" / "thesis.tex"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("chapter one")
    with pytest.raises(UserError, match="exists and is not a run of this program; choose another name"):
        runs.claim(load())
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_one_sentence(load, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write the run folder .* choose another with train.runs"):
        runs.claim(load())


def test_a_damaged_run_file_is_one_sentence(load):
    folder, _ = runs.claim(load())
    (folder / "run.json").write_text('{"identity": ')
    with pytest.raises(UserError, match="run.json is damaged"):
        runs.claim(load())
