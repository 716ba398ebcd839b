import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from ssl_transfer.probes import extract_features, load_feature_file, raw_pixels


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (11, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5), nn.Dropout()).eval()


def test_features_are_those_of_each_image_alone_in_order(model, pixels):
    together = extract_features(model, pixels, batch_size=4)
    alone = torch.cat([model(pixels[i : i + 1].float() / 255) for i in range(len(pixels))])
    torch.testing.assert_close(together, alone.detach())


def test_features_are_ordinary_tensors_that_autograd_accepts(model, pixels):
    features = extract_features(model, pixels)
    assert not features.is_inference() and not features.requires_grad
    weight = torch.ones(5, requires_grad=True)
    (features @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, features.sum(dim=0))


def test_half_precision_models_give_float32_features(pixels):
    features = extract_features(lambda images: images.flatten(1).bfloat16(), pixels)
    assert features.dtype == torch.float32


@pytest.mark.parametrize("training", [slice(0, 1), slice(2, 3), slice(3, 4)])
def test_a_model_with_any_part_in_training_mode_is_refused(model, pixels, training):
    for module in list(model.modules())[1:][training]:
        module.train()
    with pytest.raises(ValueError, match=r"in training mode.*call model.eval\(\)"):
        extract_features(model, pixels)


def test_raw_pixels_are_the_images_in_order_between_0_and_1(pixels):
    rows = raw_pixels(pixels)
    assert rows.shape == (11, 48)
    torch.testing.assert_close(rows[7].view(3, 4, 4) * 255, pixels[7].float())


def arrays(**changes):
    arrays = {
        "train_x": np.arange(12.0).reshape(6, 2),
        "train_y": np.array([0, 1, 2, 0, 1, 2]),
        "test_x": np.ones((3, 2), dtype=np.float16),
        "test_y": np.array([2, 1, 0], dtype=np.uint8),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def test_a_feature_file_of_another_tool_is_read_as_it_is(tmp_path):
    np.savez(tmp_path / "features.npz", **arrays())
    features = load_feature_file(tmp_path / "features.npz")
    assert features.train_x.tolist() == np.arange(12.0).reshape(6, 2).tolist()
    assert features.test_y.tolist() == [2, 1, 0]
    assert features.test_x.dtype == torch.float32 and features.test_y.dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_y": None}, "lacks test_y"),
        ({"test_x": np.ones((3, 4))}, "train_x has 2 dimensions but test_x has 4"),
        ({"train_x": np.ones((6, 2, 1))}, r"train_x is float64 of shape \(6, 2, 1\)"),
        ({"train_y": np.ones(6)}, "train_y is float64"),
        ({"train_y": np.array([0, 1, 2])}, "train_x has 6 rows but train_y has 3 labels"),
        ({"train_x": np.array([[0, 1], [np.nan, 1]] * 3)}, "train_x has 3 of 6 rows that are not finite, .* row 1"),
        ({"test_y": np.array([0, 1, 7])}, r"1 classes that are absent from train_y \(7\)"),
        ({"test_y": np.array([0, 1, -1])}, "test_y has 1 of 3 labels missing"),
        ({"test_x": np.ones((0, 2)), "test_y": np.ones(0, dtype=int)}, "test_x is empty"),
        ({"train_x": np.array([["a", "b"]] * 6)}, "train_x is <U1"),
        ({"train_x": np.array([{}] * 6)}, "not an npz file of arrays"),
    ],
)
def test_a_feature_file_that_cannot_be_scored_is_refused_in_one_sentence(tmp_path, changes, message):
    np.savez(tmp_path / "features.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message):
        load_feature_file(tmp_path / "features.npz")


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "features.npz").write_text("not an archive")
    with pytest.raises(ValueError, match="not an npz file"):
        load_feature_file(tmp_path / "features.npz")


@pytest.mark.parametrize(
    "content",
    [
        b"no array",
        b"\x93NUMPY\x01\x00\x64\x00" + b"(" * 99 + b"\n",  # a header that Python cannot read
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-6, 2)}".ljust(117) + b"\n",
    ],
)
def test_a_member_that_is_no_array_is_refused(tmp_path, content):
    np.savez(tmp_path / "features.npz", **arrays(train_x=None))
    with zipfile.ZipFile(tmp_path / "features.npz", "a") as archive:
        archive.writestr("train_x.npy", content)
    with pytest.raises(ValueError, match="not an npz file of arrays"):
        load_feature_file(tmp_path / "features.npz")


def test_damaged_compressed_features_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "features.npz", **arrays())
    damaged = bytearray((tmp_path / "features.npz").read_bytes())
    damaged[80] ^= 255
    (tmp_path / "features.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match="not an npz file of arrays"):
        load_feature_file(tmp_path / "features.npz")


def test_a_missing_feature_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="features.npz"):
        load_feature_file(tmp_path / "features.npz")
