"""Weights on disk: whole, of the right model, and never code."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, load_model, read_state, save_model

SPEC = ModelSpec("cifar_resnet8", "default", in_chans=1, image_size=8, mean=(0.3,), std=(0.4,))


@pytest.mark.parametrize(
    "head", [None, HeadSpec("embedding", 5), HeadSpec("projection", 6), HeadSpec("projection", 6, 7)]
)
def test_a_model_comes_back_as_it_was(tmp_path, head):
    spec = ModelSpec(**{**vars(SPEC), "head": head})
    model = build_model(spec)
    images = torch.rand(4, 1, 8, 8)
    model(images)  # batch norm leaves its first values
    save_model(tmp_path, model, spec)
    loaded, loaded_spec = load_model(tmp_path)
    assert loaded_spec == spec and not loaded.training
    for name, expected in model.eval().outputs(images).items():
        assert torch.equal(loaded.outputs(images)[name], expected), name


@pytest.fixture
def saved(tmp_path):
    save_model(tmp_path, build_model(SPEC), SPEC)
    return tmp_path


def test_missing_files_are_named(tmp_path, saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing: run its recipe"):
        load_model(saved)


def test_a_cut_file_is_refused(saved):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read .* may be cut short"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("backbone.mean"), "1 missing .first: backbone.mean"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "1 unexpected .first: extra"),
        (lambda weights: weights.update({"backbone.mean": torch.zeros(3, 1, 1)}), "1 of another shape"),
    ],
)
def test_weights_of_another_model_are_refused(saved, change, words):
    weights = load_file(saved / "model.safetensors")
    change(weights)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(ValueError, match=words):
        load_model(saved)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"backbone": "x", "head": null}'])
def test_a_config_of_something_else_is_refused(saved, content):
    (saved / "config.json").write_text(content)
    with pytest.raises(ValueError, match="does not describe a model of this program"):
        load_model(saved)


def test_the_config_is_readable_by_others(saved):
    assert json.loads((saved / "config.json").read_text())["mean"] == [0.3]


def test_a_state_with_code_in_it_does_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"step": Code()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="cannot be continued from"):
        read_state(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()
