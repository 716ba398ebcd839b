import pytest
import torch
from torch import nn

from ssl_transfer.scoring.feature_cache import read_features, weights_hash, write_features

KEY = {"weights": "aa", "data": "bb", "layer": "features"}


def test_features_come_back_as_they_were_kept(tmp_path):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    write_features(tmp_path, KEY, x)
    assert torch.equal(read_features(tmp_path, KEY), x)


@pytest.mark.parametrize("changed", KEY)
def test_features_of_another_key_are_not_found(tmp_path, changed):
    write_features(tmp_path, KEY, torch.ones(2, 2))
    assert read_features(tmp_path, KEY | {changed: "other"}) is None


def test_a_damaged_file_counts_as_none(tmp_path):
    write_features(tmp_path, KEY, torch.ones(50, 50))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:500])
    assert read_features(tmp_path, KEY) is None


def test_an_empty_folder_holds_none(tmp_path):
    assert read_features(tmp_path / "nowhere", KEY) is None


def test_the_hash_is_of_every_parameter_and_buffer_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    plain = weights_hash(model)
    assert weights_hash(model) == plain and len(plain) == 16
    with torch.no_grad():
        model[1].running_mean[2] += 1e-6
    assert weights_hash(model) != plain
    assert weights_hash(nn.Sequential(nn.ReLU(), *model)) != weights_hash(model)
