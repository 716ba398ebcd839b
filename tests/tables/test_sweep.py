"""Sweeps: the combinations and their folders, and runs that are missing, done, stopped or failing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_transfer import config, recipe, runs
from ssl_transfer.cli import main
from ssl_transfer.errors import UserError
from ssl_transfer.tables import grid, sweep
from ssl_transfer.training.engine import Interrupted
from tests.test_config import ROOT

TRANSFER = ROOT / "recipes" / "digits" / "transfer.yaml"
SMALL = [
    "data.batch_size=48",
    "train.steps=2",
    "train.precision=full",
    "train.cpu_threads=1",
    "task.teacher.recipe.data.batch_size=48",
    "task.teacher.recipe.train.steps=2",
    "task.teacher.recipe.train.precision=full",
    "score=[{kind: knn, k: [5, 20]}]",
]


def names(folder: Path, *overrides: str) -> list[str]:
    planned = grid.plan(TRANSFER, [*overrides, f"train.runs={folder}"])
    return [combination.recipe.name for combination in planned]


def problems(*overrides: str, baseline: str | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        grid.plan(TRANSFER, overrides, baseline=baseline)
    return [line.strip() for line in str(caught.value).splitlines()]


def test_every_combination_has_a_folder_named_after_its_values(tmp_path):
    assert names(tmp_path, "task.kind=rkd,pkt", "train.epochs=50", "seed=0,1") == [
        "digits-transfer-rkd-seed0",
        "digits-transfer-rkd-seed1",
        "digits-transfer-pkt-seed0",
        "digits-transfer-pkt-seed1",
    ]
    assert names(tmp_path, "seed=3") == ["digits-transfer"]
    assert names(tmp_path, "task.teacher.recipe.seed=0,1") == [
        "digits-transfer-teacher-seed0",
        "digits-transfer-teacher-seed1",
    ]


def test_a_comma_within_brackets_or_quotes_belongs_to_its_value(tmp_path):
    planned = grid.plan(TRANSFER, ["data.augment.crop_scale=[0.1, 1.0],[0.3, 1.0]", f"train.runs={tmp_path}"])
    assert [combination.recipe.data.augment.crop_scale for combination in planned] == [(0.1, 1.0), (0.3, 1.0)]
    assert planned[0].recipe.name == "digits-transfer-crop_scale0.1_1.0"
    one = grid.plan(TRANSFER, ["score=[{kind: knn, k: [5, 20]}]", "data.root='a,b'", f"train.runs={tmp_path}"])
    assert [combination.recipe.data.root for combination in one] == ["a,b"]


def test_all_problems_of_all_combinations_are_told_at_once_and_each_once():
    title, *told = problems("task.kind=rkdd,pkt", "optim.lr=-1,1e-3", "train.epoch=3", "seed=0,1")
    assert title.endswith("digits/transfer.yaml: 3 problems")
    assert sum("kind cannot be 'rkdd'; did you mean 'rkd'" in line for line in told) == 1
    assert [line for line in told if line.startswith("optim.lr: cannot be -1")][0].endswith("(with optim.lr=-1)")
    assert [line for line in told if line.startswith("train.epoch: is no key here")][0].endswith("runs)")  # in all


def test_combinations_that_cannot_be_compared_are_refused_before_they_run(tmp_path):
    assert "seed=0 and seed=0 are the same run; give a value once" in problems("seed=0,1,0")
    assert "score: names no score of the end, so there would be nothing to compare" in problems("seed=0,1", "score=[]")
    told = problems("task.kind=rkd,pkt", baseline="rdk")
    assert told[-1] == "there is no method 'rdk' to compare with; did you mean 'rkd'? (allowed: rkd, pkt)"


def test_the_teacher_is_one_unless_its_own_seed_is_swept(tmp_path):
    def told(*overrides: str) -> str:
        return sweep.describe(grid.plan(TRANSFER, [*overrides, f"train.runs={tmp_path}"]))

    assert told("seed=0,1,2") == "3 runs, 0 of them done; one teacher, digits-simclr (seed 0)"
    several = told("seed=0,1", "task.teacher.recipe.seed=5,6")
    assert several == "4 runs, 0 of them done; 2 teachers, digits-simclr (seed 5), digits-simclr (seed 6)"
    recipes = TRANSFER.parent
    both = f"task.teacher=[{{recipe: {recipes}/simclr.yaml}}, {{recipe: {recipes}/moco.yaml}}],{{recipe: simclr.yaml}}"
    assert told(both) == "2 runs, 0 of them done; 2 teachers, digits-simclr (seed 0), digits-moco (seed 0)"


def test_a_run_started_by_hand_is_found_under_its_own_name(tmp_path):
    by_hand = config.load(TRANSFER, ["name=mine", "seed=1", f"train.runs={tmp_path}"])
    runs.claim(by_hand)
    assert names(tmp_path, "seed=0,1") == ["digits-transfer-seed0", "mine"]
    (tmp_path / "mine" / "run.json").write_text("{")  # damaged: passed over
    assert names(tmp_path, "seed=0,1") == ["digits-transfer-seed0", "digits-transfer-seed1"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The runs of a sweep over two methods and two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    main(["sweep", str(TRANSFER), "task.kind=relaxed_contrastive,pkt", "seed=0,1", *SMALL, f"train.runs={folder}"])
    return folder


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_by_itself(finished, tmp_path):
    alone = recipe.run(config.load(TRANSFER, ["task.kind=pkt", "seed=1", *SMALL, f"train.runs={tmp_path}"]))
    expected, found = weights(alone), weights(finished / "digits-transfer-pkt-seed1")
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


@pytest.mark.slow
def test_a_finished_sweep_runs_nothing_and_prints_its_table_again(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    main(["sweep", str(TRANSFER), "task.kind=relaxed_contrastive,pkt", "seed=0,1", *SMALL, f"train.runs={finished}"])
    shown = capsys.readouterr().out
    assert "4 runs, 4 of them done; one teacher, digits-simclr (seed 0)" in shown
    assert "[4/4] digits-transfer-pkt-seed1 is done" in shown
    lines = [line.split("|")[1].strip() for line in shown.splitlines() if line.startswith("|") and "(2)" in line]
    assert lines[:2] == ["relaxed_contrastive", "pkt"]
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert len(list(finished.glob("digits-simclr*"))) == 1  # both seeds share their teacher


@pytest.mark.slow
def test_a_finished_sweep_loads_no_torch(finished):
    overrides = ["task.kind=relaxed_contrastive,pkt", "seed=0,1", *SMALL, f"train.runs={finished}"]
    code = f"import sys; from ssl_transfer.cli import main; main(['sweep', {str(TRANSFER)!r}, *{overrides!r}])"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_stopped_sweep_continues_where_it_stopped(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "digits-transfer-pkt-seed1")
    stopped = config.load(TRANSFER, ["task.kind=pkt", "seed=1", *SMALL, f"train.runs={tmp_path}", "name=by-hand"])
    with pytest.raises(Interrupted):
        recipe.run(stopped, stop=lambda step: step == 1)
    kept = (tmp_path / "digits-transfer-pkt-seed0" / "scores.json").stat().st_mtime_ns

    main(["sweep", str(TRANSFER), "task.kind=relaxed_contrastive,pkt", "seed=0,1", *SMALL, f"train.runs={tmp_path}"])
    assert "[4/4] by-hand\n" in capsys.readouterr().out
    found, expected = weights(tmp_path / "by-hand"), weights(finished / "digits-transfer-pkt-seed1")
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    assert (tmp_path / "digits-transfer-pkt-seed0" / "scores.json").stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_failing_run_does_not_stop_the_others(finished, tmp_path, capsys):
    shutil.copytree(finished / "digits-simclr", tmp_path / "digits-simclr")
    overrides = ["model.backbone=cifar_resnet9,cifar_resnet8", *SMALL, f"train.runs={tmp_path}"]
    with pytest.raises(SystemExit) as caught:
        main(["sweep", str(TRANSFER), *overrides])
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "1 of 2 runs failed; the same command tries them again" in shown.err
    assert "digits-transfer-cifar_resnet9: there is no backbone named 'cifar_resnet9' in timm" in shown.err
    assert "| relaxed_contrastive" in shown.out and "(1)" in shown.out


def test_a_run_in_which_another_machine_trains_is_left_for_later(tmp_path, monkeypatch):
    combinations = grid.plan(TRANSFER, ["seed=0,1,2", *SMALL, f"train.runs={tmp_path}"])
    began = []
    monkeypatch.setattr(sweep, "_run_one", lambda given: began.append(given.seed))
    with runs.exclusive_folder(combinations[0].recipe, lambda folder, seconds: None):
        assert sweep.run(combinations, say=lambda text: None) == {}
    assert began == [1, 2, 0]


def test_programs_that_choose_at_the_same_moment_take_different_runs(tmp_path, monkeypatch):
    combinations = grid.plan(TRANSFER, ["seed=0,1,2", *SMALL, f"train.runs={tmp_path}"])
    began = []

    def begin(given):
        began.append(given.seed)
        if len(began) == 1:  # chosen, and its folder not locked yet
            assert sweep.run(combinations, say=lambda text: None) == {}

    monkeypatch.setattr(sweep, "_run_one", begin)
    assert sweep.run(combinations, say=lambda text: None) == {}
    assert began == [0, *(1, 2, 0), *(1, 2)] and not list(tmp_path.rglob("*claim*"))


@pytest.mark.slow
def test_a_fault_of_the_program_in_one_run_does_not_stop_the_others(finished, tmp_path, capsys, monkeypatch):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for name in ("digits-transfer-pkt-seed0", "digits-transfer-pkt-seed1"):
        (tmp_path / name / "scores.json").unlink()
    score_once = recipe.score_once

    def broken(given, *rest):
        if given.seed == 0:
            raise RuntimeError("shapes do not match")
        score_once(given, *rest)

    monkeypatch.setattr(recipe, "score_once", broken)
    overrides = ["task.kind=relaxed_contrastive,pkt", "seed=0,1", *SMALL, f"train.runs={tmp_path}"]
    failures = sweep.run(grid.plan(TRANSFER, overrides), say=print)
    assert failures == {"digits-transfer-pkt-seed0": "RuntimeError: shapes do not match"}
    assert (tmp_path / "digits-transfer-pkt-seed1" / "scores.json").exists()


@pytest.mark.slow
def test_a_sweep_on_two_processes_is_that_of_one(finished, tmp_path, free_port):
    shutil.copytree(finished / "digits-simclr", tmp_path / "digits-simclr")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = ["-m", "ssl_transfer", "sweep", str(TRANSFER), "task.kind=relaxed_contrastive,pkt", *SMALL]
    done = subprocess.run(
        [*launcher, "--main_process_port", str(free_port), *command, f"train.runs={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("2 runs, 0 of them done") == 1  # one process speaks
    for kind in ("relaxed_contrastive", "pkt"):
        found = weights(tmp_path / f"digits-transfer-{kind}")
        for name, weight in weights(finished / f"digits-transfer-{kind}-seed0").items():
            torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-4)
        assert json.loads((tmp_path / f"digits-transfer-{kind}" / "run.json").read_text())["processes"] == 2
