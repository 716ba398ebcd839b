"""The command line: what it prints, and with which code it ends."""

import os
import subprocess
import sys

import pytest

from ssl_transfer.cli import main
from ssl_transfer.errors import UserError
from tests.test_config import PRETRAIN, ROOT, TRANSFER


@pytest.fixture
def folder(tmp_path, monkeypatch):
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "small.yaml").write_text(PRETRAIN)
    (recipes / "smaller.yaml").write_text(TRANSFER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_a_mistake_ends_with_2_and_one_message(folder, capsys):
    assert code_of("validate", "recipes/smal.yaml") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "ssl-transfer: there is no recipe recipes/smal.yaml; did you mean recipes/small.yaml?\n"


def test_only_the_first_process_speaks(folder, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert code_of("run", "recipes/none.yaml") == 2
    assert capsys.readouterr().err == ""


def test_show_prints_a_recipe_that_can_be_run_and_says_where(folder, capsys):
    main(["show", "recipes/smaller.yaml", "optim.lr=1e-4"])
    shown = capsys.readouterr().out
    assert "# identity " in shown and "runs/smaller: not started" in shown
    (folder / "copy.yaml").write_text(shown)
    main(["show", "copy.yaml"])
    assert capsys.readouterr().out == shown


def test_ls_lists_recipes_and_runs_and_survives_a_bad_one(folder, capsys):
    (folder / "recipes" / "bad.yaml").write_text("name: 3")
    main(["ls"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["recipes/small.yaml", "simclr", "tiny_convnet", "digits"] for line in lines)
    assert any("recipes/bad.yaml" in line and "not valid" in line for line in lines)
    assert lines[-1] == "no runs yet"
    assert code_of("ls", "nowhere") == 2


def test_score_of_something_else_is_one_sentence(folder, capsys):
    assert code_of("score", str(folder)) == 2
    assert capsys.readouterr().err == f"ssl-transfer: {folder} is no run folder: it has no recipe.yaml\n"


def test_every_kind_of_user_error_ends_with_its_code():
    from ssl_transfer.training.engine import Interrupted

    assert (UserError.exit_code, Interrupted.exit_code) == (2, 130)


@pytest.mark.slow
def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "ssl_transfer", "run", str(ROOT / "recipes/digits/simclr.yaml"), "score=[]"]
    overrides = [f"train.runs={tmp_path}", "train.log_every=1", "train.cpu_threads=1", "data.batch_size=64"]
    run = subprocess.Popen([*command, *overrides], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    log = tmp_path / "digits-simclr" / "metrics.jsonl"
    while run.poll() is None and not (log.exists() and log.stat().st_size > 500):
        os.sched_yield()
    run.terminate()
    _, told = run.communicate(timeout=120)
    assert run.returncode == 130, told
    assert "run the same command again to continue" in told
    assert (tmp_path / "digits-simclr" / "state" / "state.pt").exists()
