"""STL-10's published protocol: one probe for each of its ten predefined folds, tested on all test images."""

import json
import statistics

import numpy as np
import pytest

from ssl_transfer import config, recipe
from ssl_transfer.building.data import list_images
from ssl_transfer.data import load_images
from ssl_transfer.errors import UserError
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.probes import linear_probe
from tests.fake_stl10 import fake_stl10

RECIPE = """
name: folds
seed: 0
data:
  dataset: stl10
  split: train+unlabeled
  root: {root}
  download: false
  crop_size: 16
  batch_size: 20
  augment: simclr
model: {{backbone: tiny_convnet}}
task: {{kind: simclr, projection_dim: 8}}
optim: {{name: adamw, lr: 1.0e-3}}
train: {{epochs: 1, steps: 1, precision: full, cpu_threads: 1, runs: {root}/runs}}
score: [{{kind: linear_probe}}, {{kind: linear_probe, folds: true}}]
"""


@pytest.fixture
def stl10(tmp_path, monkeypatch):
    """Images of three shades that overlap, in ten folds of 18."""
    draw = np.random.default_rng(0)
    counts = {"train": 180, "unlabeled": 20, "test": 60}
    labels = {part: np.arange(n) % 3 for part, n in counts.items()}
    shades = {part: 60 * labels[part] + draw.integers(0, 90, n) for part, n in counts.items()}
    pixels = {
        part: (shades[part][:, None, None, None] + draw.integers(0, 40, (n, 3, 96, 96))).astype(np.uint8)
        for part, n in counts.items()
    }
    folds = draw.permutation(180).reshape(10, 18)
    del labels["unlabeled"]
    (tmp_path / "folds.yaml").write_text(RECIPE.format(root=tmp_path))
    return fake_stl10(tmp_path, monkeypatch, pixels, labels, folds), folds


@pytest.mark.slow
def test_a_run_is_scored_by_the_mean_of_its_folds_in_a_column_of_their_own(stl10, program):
    root, folds = stl10
    folder = recipe.run(config.load(root / "folds.yaml"))
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    trained = {score["metric"]: score for score in scores if score["model"].startswith("trained")}
    assert set(trained) == {"linear", "linear per fold"} and trained["linear"]["protocol"]["n_train"] == 180

    train, test = (load_images("stl10", root, split=split, download=False).middle(16) for split in ("train", "test"))
    model, _ = load_model(folder)
    x, test_x = compute_features(model, train), compute_features(model, test)
    alone = [linear_probe(x[rows], train.labels[rows], test_x, test.labels).accuracy for rows in folds]
    found = trained["linear per fold"]
    assert (found["value"], found["sd"]) == pytest.approx((statistics.mean(alone), statistics.stdev(alone)))
    assert found["sd"] > 0 and found["n"] == 10
    assert found["protocol"].items() >= {"folds": 10, "n_train": 18, "n_test": 60, "protocol": "lbfgs"}.items()
    assert program("linear_probe --folds", folder) == [found | {"model": str(folder), "role": "other"}]


@pytest.mark.parametrize("override", ["dataset=cifar10", "train=test", "images=100", "held_out=100"])
def test_other_data_are_refused_before_anything_is_read(stl10, override):
    with pytest.raises(UserError, match="folds are predefined in stl10's split train alone") as error:
        config.load(stl10[0] / "folds.yaml", ["data.split=train", f"data.{override}"])
    assert "leave out folds of score linear_probe" in str(error.value)


def test_what_is_left_out_of_another_split_leaves_the_folds_whole(stl10):
    given = config.load(stl10[0] / "folds.yaml", ["data.images=100", "data.held_out=50"])
    assert len(list_images(given, "train").folds) == 10 and len(list_images(given, "training")) == 100
