"""The command line: what it prints, and with which code it ends."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ssl_transfer import cli, config, runs
from ssl_transfer.cli import main
from ssl_transfer.errors import UserError
from ssl_transfer.tables import grid
from tests.fake_runs import fake_run
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
    assert "no recipe" in capsys.readouterr().err  # no launcher has set it: there is no first process to speak
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert code_of("run", "recipes/none.yaml") == 2
    assert capsys.readouterr().err == ""


def test_show_prints_a_recipe_that_can_be_run_and_says_where(folder, capsys):
    main(["show", "recipes/smaller.yaml", "optim.lr=1e-4"])
    shown = capsys.readouterr().out
    assert "# identity " in shown and "runs/smaller: not started" in shown
    (folder / "copy.yaml").write_text(shown)
    main(["show", "copy.yaml"])
    assert capsys.readouterr().out == shown


def test_options_may_stand_anywhere(folder, capsys, monkeypatch):
    given = []
    monkeypatch.setattr(cli, "_show", given.append)
    monkeypatch.setattr(cli, "_sweep", given.append)
    monkeypatch.setattr(cli, "_compare", given.append)
    monkeypatch.setattr(cli, "_doctor", given.append)
    small, values = Path("recipes/small.yaml"), ["seed=1", "optim.lr=1"]
    for words in (
        "show recipes/small.yaml seed=1 optim.lr=1 --views v.png",
        "show recipes/small.yaml --views v.png seed=1 optim.lr=1",
        "show --views v.png recipes/small.yaml seed=1 optim.lr=1",
        "show recipes/small.yaml seed=1 --views=v.png optim.lr=1",
    ):
        main(words.split())
        shown = given.pop()
        assert (shown.recipe, shown.overrides, shown.views) == (small, values, Path("v.png")), words
    main("sweep recipes/small.yaml --out table seed=1 --baseline pkt optim.lr=1".split())
    swept = given.pop()
    assert (swept.recipe, swept.overrides, swept.out, swept.baseline) == (small, values, Path("table"), "pkt")
    main("doctor recipes/small.yaml --images 7 seed=1 optim.lr=1".split())
    assert (given[0].file, given[0].overrides, given.pop().images) == (small, values, 7)
    main("compare one --out table two three".split())
    assert (given[0].runs, given.pop().out) == ([Path("one"), Path("two"), Path("three")], Path("table"))
    for words in ("show recipes/small.yaml --view v.png --foo seed=1", "ls recipes more", "export runs/x --to y z"):
        assert code_of(*words.split()) == 2
        assert "unrecognized arguments" in capsys.readouterr().err
    assert code_of("doctor", "recipes/small.yaml", "--images", "0") == 2
    assert "write a whole number from 1 on" in capsys.readouterr().err
    assert not given


def test_paths_of_the_command_line_begin_at_home_behind_a_tilde(folder, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    main(["validate", "~/recipes/small.yaml"])
    assert str(folder / "recipes/small.yaml") in capsys.readouterr().out
    assert code_of("compare", "--out=~nobody-of-this-name/x", "runs/a") == 2
    assert "there is no home folder ~nobody-of-this-name" in capsys.readouterr().err


def test_all_problems_of_a_recipe_are_printed(folder, capsys):
    inner = "task.teacher.recipe."
    wrong = [f"{inner}train.epochs=3", f"{inner}optim.warmup_epochs=4", "optim.warmup_epochs=9", "model.stem=cifr"]
    assert code_of("validate", "recipes/smaller.yaml", *wrong) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ssl-transfer: recipes/smaller.yaml: 3 problems" and len(lines) == 4


def in_a_process(*arguments: str, stdout: int, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ssl_transfer", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, **environment})


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_who_has_seen_enough_is_no_error(folder, monkeypatch, unbuffered):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reading, writing = os.pipe()
    os.close(reading)
    for arguments in (["show", "recipes/smaller.yaml"], ["ls"]):
        done = in_a_process(*arguments, stdout=writing, PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, done.stderr) == (1, b"")
    os.close(writing)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, where every write fails, on this system")
def test_an_output_that_takes_nothing_is_one_sentence(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with open("/dev/full", "wb") as full:
        done = in_a_process("show", "recipes/small.yaml", stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == (
        b"ssl-transfer: nothing more can be written (No space left on device): make room, or choose another folder, "
        b"and run the same command again\n"
    )


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_letters_that_a_terminal_does_not_know_are_spelled_out(folder, monkeypatch, locale):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (folder / "recipes" / "ü.yaml").write_text(f"# ±\n{PRETRAIN}", encoding="utf-8")
    done = in_a_process("ls", stdout=subprocess.PIPE, **locale)
    assert (done.returncode, done.stderr) == (0, b"")
    (line,) = [line for line in done.stdout.splitlines() if b"\\" in line]
    assert line.split()[1:] == [b"simclr", b"tiny_convnet", b"digits"]


def test_too_little_memory_is_one_sentence(folder, capsys, monkeypatch):
    def fill(given):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")

    monkeypatch.setattr(cli, "_validate", fill)
    assert code_of("validate", "recipes/small.yaml") == 2
    told = "ssl-transfer: the memory does not suffice (CUDA out of memory. Tried to allocate 20.00 GiB): lower data."
    said = capsys.readouterr().err
    assert said.startswith(told) and said.count("\n") == 1


def test_a_comma_divides_values_but_not_what_is_quoted_or_bracketed(folder):
    recipe = folder / "recipes" / "small.yaml"
    planned = grid.plan(recipe, ["data.split='a,b',it's,c", "score=[{kind: knn, k: [1, 2]}]"])
    assert [combination.recipe.data.split for combination in planned] == ["a,b", "it's", "c"]


def test_a_long_value_leaves_a_name_that_a_folder_can_have(folder):
    recipe = folder / "recipes" / "small.yaml"
    planned = grid.plan(recipe, ["data.split=" + ",".join("x" * 240 + end for end in "ab"), "score=[{kind: knn}]"])
    names = [combination.recipe.name for combination in planned]
    assert names[0] != names[1] and {len(name) for name in names} == {200}


def test_ls_lists_recipes_and_runs_and_survives_a_bad_one(folder, capsys):
    (folder / "recipes" / "bad.yaml").write_text("name: 3")
    main(["ls"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["recipes/small.yaml", "simclr", "tiny_convnet", "digits"] for line in lines)
    assert any("recipes/bad.yaml" in line and "not valid" in line for line in lines)
    assert lines[-1] == "no runs yet"
    assert code_of("ls", "nowhere") == 2


def test_ls_finds_recipes_of_ones_own_and_says_what_a_run_changed_and_scored(folder, capsys):
    (folder / "mine.yaml").write_text(PRETRAIN.replace("name: small", "name: mine"))
    (folder / "other.yaml").write_text("services: {web: 1}")
    made = fake_run(
        folder / "runs" / "mine", {"trained (tiny_convnet)": {"kNN 20": 0.913}}, recipe="digits/simclr.yaml"
    )
    changed = config.load(folder / "mine.yaml", ["optim.lr=1e-4", "seed=7"])
    (made / "recipe.yaml").write_text(config.dump(changed))
    info = runs.read_info(made)
    assert info is not None
    runs.write_info(made, replace(info, identity=config.identity_hash(changed)))
    main(["ls"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["mine.yaml", "simclr"] for line in lines)
    assert not any("other.yaml" in line or line.startswith("runs/mine/recipe.yaml") for line in lines)
    (run,) = (line for line in lines if line.startswith("runs/mine "))
    assert run.split("  ")[-1].strip() == "optim.lr 0.002 -> 0.0001"
    assert "finished" in run and " 7 " in run and "kNN 20 91.3" in run


def test_score_of_something_else_is_one_sentence(folder, capsys):
    assert code_of("score", str(folder)) == 2
    assert capsys.readouterr().err == f"ssl-transfer: {folder} is no run folder: it has no recipe.yaml\n"


def test_score_refuses_a_folder_of_another_user_before_it_begins(folder, capsys, monkeypatch):
    run, _ = runs.claim(config.load(folder / "recipes" / "small.yaml"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert code_of("score", str(run)) == 2
    assert f"cannot write into {run} (Permission denied): score a copy of the folder" in capsys.readouterr().err


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
