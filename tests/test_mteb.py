"""The wrapper for mteb, by the part of mteb's protocol that it fills; benchmarks/mteb_images.py runs mteb itself."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_transfer.data import load_images
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.models.checkpoint import ModelSpec, build_model, save_model
from tests.data.sources import layouts


class Meta(dict):
    @classmethod
    def create_empty(cls, overwrites):
        return cls(overwrites)


@pytest.fixture
def wrapper(monkeypatch):
    """The module as it is where mteb is installed, with the two classes of mteb that it uses."""
    for name in ("mteb", "mteb.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, content in (("abs_encoder", {"AbsEncoder": object}), ("model_meta", {"ModelMeta": Meta})):
        module = ModuleType(f"mteb.models.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "ssl_transfer.mteb", raising=False)
    from ssl_transfer import mteb

    yield mteb
    sys.modules.pop("ssl_transfer.mteb", None)


@pytest.fixture
def student(tmp_path) -> Path:
    torch.manual_seed(0)
    spec = ModelSpec("cifar_resnet8", "default", 3, 16, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    save_model(tmp_path / "student", build_model(spec), spec)
    return tmp_path / "student"


def loader(batches: list[dict], *columns: str):
    class Batches(list):
        dataset = SimpleNamespace(features=dict.fromkeys(columns))

    return Batches(batches)


def test_images_of_a_loader_get_the_features_that_scores_are_taken_of(wrapper, student, tmp_path):
    """Of any shape, gray and transparent ones as well."""
    for number in range(4):
        layouts.image(tmp_path / "photos" / f"{number}.png", number)
    expected = load_images("folder", tmp_path / "photos", split="train", image_size=16)
    pictures = [Image.open(tmp_path / "photos" / f"{number}.png") for number in range(4)]
    encoder = wrapper.ImageEncoder(str(student), device="cpu")
    found = encoder.encode(loader([{"image": pictures[:3]}, {"image": pictures[3:]}], "image"))
    torch.testing.assert_close(found, compute_features(encoder.model, expected), rtol=1e-5, atol=1e-6)
    assert found.dtype == torch.float32 and found.shape == (4, encoder.model.num_features)
    gray = Image.fromarray(np.full((30, 20), 77, dtype=np.uint8))
    rgb = Image.fromarray(np.full((30, 20, 3), 77, dtype=np.uint8))
    first, second = encoder.get_image_embeddings(loader([{"image": [gray, rgb.convert("RGBA")]}], "image"))
    torch.testing.assert_close(first, second)
    assert encoder.mteb_model_meta["name"] == "ssl-transfer/student"


def test_texts_are_refused(wrapper, student):
    encoder = wrapper.ImageEncoder(str(student), device="cpu")
    with pytest.raises(ValueError, match="images and no text"):
        encoder.encode(loader([], "image", "text"))


def test_without_mteb_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb.models.abs_encoder", None)
    monkeypatch.delitem(sys.modules, "ssl_transfer.mteb", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'ssl-transfer\[mteb\]'"):
        import ssl_transfer.mteb  # noqa: F401
