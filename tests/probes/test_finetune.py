from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_transfer.data import Augment, load_images
from ssl_transfer.probes import finetune
from ssl_transfer.probes.splits import shuffled
from tests.reference import training as twin


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


class Recorder(nn.Module):
    """A network that keeps the features of its training batches, also those of its copies."""

    def __init__(self, network, seen):
        super().__init__()
        self.network, self.seen = network, seen

    def __deepcopy__(self, memo):
        return Recorder(deepcopy(self.network, memo), self.seen)

    def forward(self, images):
        features = self.network(images)
        if self.training:
            self.seen.append(features.detach().clone())
        return features


def test_every_pass_is_made_in_the_given_arithmetic_with_the_weights_of_the_last_step(network, digits):
    """Autocast keeps the narrow copies of weights that it made, until it is left: it is entered for each step."""
    settings = dict(fraction=0.2, epochs=5, batch_size=32)
    seen = []
    narrow = tuned(
        Recorder(nn.Sequential(*network[:2]), seen).eval(),
        digits,
        **settings,
        autocast=lambda: torch.autocast("cpu", torch.bfloat16),
    )
    assert {features.dtype for features in seen} == {torch.bfloat16}
    assert narrow.accuracy == pytest.approx(tuned(nn.Sequential(*network[:2]), digits, **settings).accuracy, abs=0.03)


def test_every_step_is_that_of_nesterovs_momentum_at_the_rate_of_a_cosine():
    """Features of a step tell the weights of all steps before it, the classifier's by its gradient.

    The twin counts in float64, the probe in float32: they may differ by the rounding of 28 steps.
    """
    epochs, batch_size, count, seed, width, classes = 4, 32, 250, 3, 12, 5
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randint(256, (n, 1, 6, 6), generator=generator, dtype=torch.uint8) for n in (count, 400))
    train_y, test_y = (torch.arange(len(pixels)) % classes for pixels in (train, test))
    for pixels, y in ((train, train_y), (test, test_y)):  # a bright row tells the class
        pixels[torch.arange(len(y)), 0, y] = 255
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, width, bias=False), nn.BatchNorm1d(width), nn.Tanh())
    seen = []

    def augment(pixels, epoch, rows):
        assert torch.equal(pixels, train[rows])
        return pixels / 255 * 0.9**epoch

    result = finetune(
        Recorder(network, seen).eval(),
        *(train, train_y, test, test_y),
        augment=augment,
        fraction=1.0,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    torch.manual_seed(seed)
    classifier = nn.Linear(width, classes)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    network, classifier = network.double().train(), classifier.double()
    expected = twin.finetune(
        network,
        classifier,
        lambda epoch, rows: train[rows].double() / 255 * 0.9**epoch,
        train_y,
        partial(shuffled, count, seed),
        epochs=epochs,
        batch_size=batch_size,
    )
    assert len(seen) == epochs * (count // batch_size) == 28
    torch.testing.assert_close(torch.stack(seen).double(), torch.stack(expected), rtol=0, atol=2e-5)
    predicted = classifier(network.eval()(test.double() / 255)).argmax(dim=1)
    assert result.accuracy == (predicted == test_y).double().mean().item()


@pytest.mark.parametrize("settings", [{"fraction": 0.0}, {"fraction": 1.5}, {"epochs": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(network, digits, settings):
    with pytest.raises(ValueError, match="give a fraction above 0"):
        tuned(network, digits, **settings)
