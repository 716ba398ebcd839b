"""What is scored is computed in float32 all through, whatever a GPU trains in."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_transfer import probes
from ssl_transfer.data import Augment, load_images
from ssl_transfer.evaluation import evaluate
from ssl_transfer.features.augmented import augmented_features
from ssl_transfer.features.model_features import features_of
from ssl_transfer.models import Output
from ssl_transfer.probes import extract_features
from ssl_transfer.scores.knn import KNN
from ssl_transfer.scores.measuring import measure_all
from ssl_transfer.training import epoch_recall, monitor
from tests.scores.subjects import kinds, subject

BACKENDS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)


def flags() -> list[str]:
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.fixture
def spy(monkeypatch):
    """Train in TF32, and note the arithmetic that a function is called in."""
    before = flags()
    for backend in BACKENDS:
        backend.fp32_precision = "tf32"
    seen: list[list[str]] = []

    def watch(module, name: str):
        found = getattr(module, name)

        def noting(*given, **settings):
            seen.append(flags())
            return found(*given, **settings)

        monkeypatch.setattr(module, name, noting)
        return seen

    yield watch
    for backend, precision in zip(BACKENDS, before, strict=True):
        backend.fp32_precision = precision


def test_a_measure_of_a_recipe_computes_in_float32_and_leaves_no_trace(spy):
    seen = spy(probes, "knn_accuracy")
    subjects = {"features": subject("student", 0)}
    measure_all(subjects, kinds({"kind": "knn", "k": [5]}), seed=0, main=True)
    assert seen == [["ieee", "ieee"]] and flags() == ["tf32", "tf32"]


def test_flags_are_restored_after_a_measure_that_fails(spy):
    seen = spy(probes, "knn_accuracy")
    with pytest.raises(ValueError, match="k is 500"):
        measure_all({"features": subject("student", 0)}, kinds({"kind": "knn", "k": [500]}), seed=0, main=True)
    assert seen == [["ieee", "ieee"]] and flags() == ["tf32", "tf32"]


def test_figures_during_training_are_computed_in_float32(spy, model):
    images = load_images("digits", Path(), split="test", download=False)
    seen = spy(monitor, "effective_rank")
    monitor.Monitor(lambda: model, images, [Augment(8)], every=1, count=50, k=5, seed=0)(0)
    assert seen == [["ieee", "ieee"]] and flags() == ["tf32", "tf32"]
    seen = spy(epoch_recall, "retrieval")
    epoch_recall.RecallOnTest(lambda: model, images, k=[1], every=1)(0)
    assert seen == 2 * [["ieee", "ieee"]] and flags() == ["tf32", "tf32"]


def test_a_program_measures_in_float32(spy, monkeypatch, tmp_path):
    y = np.arange(8) % 2
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    monkeypatch.setattr(sys, "argv", ["knn.py", "--features", str(tmp_path / "x.npz"), "--k", "1"])
    seen = spy(probes, "knn_accuracy")
    evaluate("A program.", KNN)
    assert seen == [["ieee", "ieee"]] and flags() == ["tf32", "tf32"]


def test_features_in_bfloat16_are_close_to_those_in_float32_and_say_so(model, digits, tmp_path):
    full = features_of("student", model, digits, cache=tmp_path)
    half = features_of("student", model, digits, cache=tmp_path, precision="bfloat16")
    assert (full.protocol["precision"], half.protocol["precision"]) == ("float32", "bfloat16")
    for x, y in ((full.features.train_x, half.features.train_x), (full.features.test_x, half.features.test_x)):
        assert y.dtype == torch.float32 and not torch.equal(x, y)
        assert (x - y).norm() < 0.02 * x.norm()
    with torch.autocast("cpu", torch.bfloat16):
        expected = extract_features(Output(model, "features").eval(), digits[1].pixels)
    assert torch.equal(half.features.test_x, expected)
    again = features_of("student", model, digits, cache=tmp_path)
    assert torch.equal(again.features.test_x, full.features.test_x) and len(list(tmp_path.iterdir())) == 4


def test_augmented_images_are_shown_in_the_precision_of_the_features(model, digits):
    rows = torch.arange(64)
    found = {
        precision: augmented_features(
            features_of("student", model, digits, precision=precision), "crop", 0, None, 0, rows
        )
        for precision in ("float32", "bfloat16")
    }
    assert found["bfloat16"].dtype == torch.float32 and not torch.equal(*found.values())
    assert (found["float32"] - found["bfloat16"]).norm() < 0.02 * found["float32"].norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_in_bfloat16_on_a_gpu_are_close_to_those_in_float32(model, digits):
    there = [images.to("cuda") for images in digits]
    full, half = (features_of("student", model, there, precision=name) for name in ("float32", "bfloat16"))
    x, y = full.features.test_x, half.features.test_x
    assert x.is_cuda and y.dtype == torch.float32 and 0 < (x - y).norm() < 0.02 * x.norm()
