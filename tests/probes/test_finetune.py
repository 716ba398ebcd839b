from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_transfer.data import Augment, load_images
from ssl_transfer.probes import finetune


@pytest.fixture(scope="module")
def digits():
    return [load_images("digits", Path(), split=split, download=False) for split in ("train", "test")]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1)).eval()


def tuned(network, digits, **settings):
    train, test = digits
    augment = Augment(8)

    def view(pixels, epoch, rows):
        return augment(pixels, seed=0, epoch=epoch, index=rows, view=0)

    return finetune(network, train.pixels, train.labels, test.pixels, test.labels, augment=view, **settings)


def test_training_the_whole_network_beats_chance_by_far_and_more_labels_are_better(network, digits):
    few, many = (tuned(network, digits, fraction=f, epochs=15, batch_size=16) for f in (0.02, 0.4))
    assert few.accuracy > 0.3
    assert many.accuracy > few.accuracy + 0.1
    assert few.labels == 30 and many.labels == pytest.approx(0.4 * len(digits[0]), abs=10)


def test_the_model_itself_and_the_random_state_stay_as_they_are(network, digits):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    tuned(network, digits, epochs=2, batch_size=32)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_score_is_a_function_of_the_seed(network, digits):
    settings = dict(fraction=0.05, epochs=3, batch_size=32)
    first = tuned(network, digits, seed=1, **settings)
    torch.rand(3)
    assert tuned(network, digits, seed=1, **settings) == first


def test_a_frozen_network_is_trained_all_the_same(network, digits):
    """A teacher comes frozen, and a fine-tuned copy of it must not be a linear probe in disguise."""
    settings = dict(fraction=0.2, epochs=5, batch_size=32)
    free = tuned(network, digits, **settings)
    assert tuned(network.requires_grad_(False), digits, **settings) == free


@pytest.mark.parametrize("settings", [{"fraction": 0.0}, {"fraction": 1.5}, {"epochs": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(network, digits, settings):
    with pytest.raises(ValueError, match="give a fraction above 0"):
        tuned(network, digits, **settings)
