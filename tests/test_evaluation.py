"""The programs in eval/: the numbers of the probes, from any kind of subject."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_transfer import config, recipe
from ssl_transfer.data import load_images
from ssl_transfer.evaluation import compute_features
from ssl_transfer.probes import knn_accuracy
from tests.test_config import ROOT


def program(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "eval" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    overrides = ["train.steps=2", "score=[]", "train.cpu_threads=1", "train.precision=full", f"train.runs={folder}"]
    return recipe.run(config.load(ROOT / "recipes" / "digits" / "simclr.yaml", overrides))


@pytest.fixture(scope="module")
def digits():
    from ssl_transfer.checkpoint import load_model

    return [load_images("digits", Path(), split=split, download=False) for split in ("train", "test")], load_model


@pytest.mark.slow
def test_knn_on_a_run_is_the_probe_on_its_features(run, digits):
    (train, test), load_model = digits
    model = load_model(run)[0]
    x = [compute_features(model, images) for images in (train, test)]
    expected = knn_accuracy(x[0], train.labels, x[1], test.labels, k=[5], temperature=0.1)[5, 0.1]
    done = program("knn", run, "--k", 5)
    assert done.returncode == 0, done.stderr
    assert f"kNN k=5 T=0.1  {100 * expected:.2f} %" in done.stdout


@pytest.mark.slow
def test_linear_probe_on_saved_features_agrees_with_sklearn(tmp_path):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(4, 12))
    y = generator.integers(0, 4, 600)
    x = (centers[y] + 1.5 * generator.normal(size=(600, 12))).astype(np.float32)
    np.savez(tmp_path / "x.npz", train_x=x[:400], train_y=y[:400], test_x=x[400:], test_y=y[400:])
    done = program("linear_probe", "--features", tmp_path / "x.npz")
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"linear probe  ([\d.]+) %", done.stdout).group(1))
    strength = float(re.search(r"L2 strength (\S+) of", done.stdout).group(1))
    scaler = StandardScaler().fit(x[:400])
    sklearn = LogisticRegression(C=1 / (400 * strength), tol=1e-8, max_iter=5000)
    sklearn.fit(scaler.transform(x[:400]), y[:400])
    assert accuracy == pytest.approx(100 * sklearn.score(scaler.transform(x[400:]), y[400:]), abs=0.51)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name one of a run folder, --timm NAME or --features FILE; given: none"),
        (["--timm", "resnet19", "--dataset", "digits"], "no backbone named 'resnet19' in timm: did you mean resnet18"),
        (["--timm", "resnet18"], "name the data set to score on"),
        (["--features", "nothing.npz"], "nothing.npz"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words):
    done = program("knn", *arguments)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_features_do_not_depend_on_the_batch_they_are_computed_in(run, digits):
    (_, test), load_model = digits
    model = load_model(run)[0]
    whole = compute_features(model, test)
    alone = compute_features(model, test.subset(torch.tensor([7])))
    torch.testing.assert_close(whole[7:8], alone, rtol=1e-5, atol=1e-6)
