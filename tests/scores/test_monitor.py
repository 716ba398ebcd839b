"""Watching a run changes nothing of it, and finds the same on any number of processes and after any stop."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_transfer import config, recipe
from ssl_transfer.data import Augment, load_images
from ssl_transfer.data.subset import held_out_images
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.models.checkpoint import ModelSpec, build_model, load_model
from ssl_transfer.probes import effective_rank, knn_leave_one_out, uniformity
from ssl_transfer.probes.splits import shuffled
from ssl_transfer.training.engine import Interrupted
from ssl_transfer.training.monitor import Monitor

ROOT = Path(__file__).parents[2]
FIGURES = ("knn", "alignment", "uniformity", "effective_rank")
# Two epochs of six steps, which are small: rounding errors, which differ with the number of processes, must not grow.
SMALL = [
    "data.batch_size=240",
    "train.epochs=2",
    "train.precision=full",
    "train.cpu_threads=1",
    "optim.warmup_epochs=0",
    "optim.lr=1.0e-4",
]


def load(folder: Path, *overrides: str, score: str = "[{kind: monitor, every: 1, images: 200, k: 5}]") -> config.Recipe:
    base = ROOT / "recipes" / "digits" / "simclr.yaml"
    return config.load(base, [*SMALL, f"train.runs={folder}", f"score={score}", *overrides])


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def watched(run: Path) -> dict[int, dict[str, float]]:
    return {line["step"]: {name: line[name] for name in FIGURES} for line in lines(run) if "knn" in line}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return recipe.run(load(tmp_path_factory.mktemp("watched")))


@pytest.mark.slow
def test_a_watched_run_has_the_bits_of_one_that_is_not(run, tmp_path):
    plain = recipe.run(load(tmp_path, score="[]"))
    found, expected = (load_file(folder / "model.safetensors") for folder in (run, plain))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(plain)]
    assert config.identity_hash(load(tmp_path)) == config.identity_hash(load(tmp_path, score="[]"))


@pytest.mark.slow
def test_figures_stand_in_the_log_at_the_end_of_every_epoch_with_their_share_of_the_time(run):
    steps = len(lines(run))
    assert list(watched(run)) == [steps // 2 - 1, steps - 1]
    for line in lines(run):
        assert ("knn" in line) == ("monitor_share" in line)
        assert 0 < line.get("monitor_share", 0.5) < 1


@pytest.mark.slow
def test_the_last_figures_are_those_of_the_saved_model(run):
    images = load_images("digits", Path(), split="train", download=False)
    model = load_model(run)[0]
    views = [Augment(8, **view) for view in config.load(run / "recipe.yaml").data.augment.views(2)]
    monitor = Monitor(lambda: model, images, views, every=1, count=200, k=5, seed=0)
    found = monitor(0)
    features = compute_features(copy.deepcopy(model), images.subset(monitor.rows))
    assert found["knn"] == knn_leave_one_out(features, images.labels[monitor.rows], k=5)[5, 0.1]
    with torch.no_grad():
        first = model(views[0](images.pixels[monitor.rows], seed=0, epoch=0, index=monitor.rows, view=0))
    assert found["uniformity"] == pytest.approx(uniformity(first), rel=1e-4)
    assert found["effective_rank"] == pytest.approx(effective_rank(first), rel=1e-4)
    assert {name: found[name] for name in FIGURES} == pytest.approx(list(watched(run).values())[-1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["{kind: simclr, projection_dim: 16}", "{kind: classify}"])
def test_images_held_out_are_the_ones_watched(tmp_path, task):
    folder = recipe.run(load(tmp_path, "data.held_out=242", f"task={task}"))
    images = held_out_images(load_images("digits", Path(), split="train", download=False), 242)
    model = load_model(folder)[0]
    rows = shuffled(242, 0, 242)[:200].sort().values
    features = compute_features(model, images.subset(rows))
    expected = knn_leave_one_out(features, images.labels[rows], k=5)[5, 0.1]
    assert lines(folder)[-1]["knn"] == pytest.approx(expected, abs=1e-9)
    assert len(lines(folder)) == 2 * (1200 // 240)


@pytest.mark.slow
def test_a_stopped_run_logs_the_same_figures_once(run, tmp_path):
    with pytest.raises(Interrupted):
        recipe.run(load(tmp_path), stop=lambda step: step == 7)
    assert watched(recipe.run(load(tmp_path))) == watched(run)


@pytest.mark.slow
def test_figures_do_not_depend_on_the_number_of_processes(run, tmp_path, free_port):
    arguments = ["--multi_gpu", "--num_processes", "2", "--main_process_port", str(free_port), "-m", "ssl_transfer"]
    path = tmp_path / "recipe.yaml"
    path.write_text(config.dump(load(tmp_path)))
    command = [sys.executable, "-m", "accelerate.commands.launch", *arguments, "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = watched(tmp_path / "digits-simclr")
    assert found.keys() == watched(run).keys()
    for step, figures in found.items():
        assert figures == pytest.approx(watched(run)[step], rel=1e-3, abs=1 / 200)  # one image more or less


def test_the_model_and_the_random_state_stay_as_they_are():
    images = load_images("digits", Path(), split="train", download=False)
    model = build_model(ModelSpec("cifar_resnet8", "default", 1, 8, (0.3,), (0.4,))).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = Monitor(lambda: model, images, [Augment(8)], every=2, count=50, k=5, seed=0)
    assert found(0) == {} and set(found(1)) == {*FIGURES, "monitor_seconds", "monitor_share"}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_images_without_labels_are_watched_without_knn():
    images = replace(load_images("digits", Path(), split="train", download=False), labels=None)
    model = build_model(ModelSpec("cifar_resnet8", "default", 1, 8, (0.3,), (0.4,)))
    found = Monitor(lambda: model, images, [Augment(8)], every=1, count=50, k=5, seed=0)(0)
    assert "knn" not in found and found["alignment"] == pytest.approx(0, abs=1e-9)
