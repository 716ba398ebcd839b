import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ssl_transfer.probes import sgd_probe
from ssl_transfer.probes.linear import standardization
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.splits import held_out_tenth, shuffled
from tests.probes.synthetic import clouds


@pytest.fixture(scope="module")
def split():
    pixels, y = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order = shuffled(len(y), 5)
    x, y = (pixels[order] / 16).float(), y[order]
    return x[:1300], y[:1300], x[1300:], y[1300:]


def plain_probe(train_x, train_y, test_x, test_y, *, rows_seen, rate, epochs, batch_size, seed):
    """One layer by torch's own optimizer and schedule; only the order of the rows is ours."""
    mean, scale = standardization(Rows(train_x))
    layer = nn.Linear(train_x.shape[1], 10)
    nn.init.zeros_(layer.bias)
    layer.weight.data = 0.01 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate * batch_size / 256, momentum=0.9)
    steps = epochs * math.ceil(len(train_y) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        for rows in shuffled(len(train_y), seed, epoch).split(batch_size):
            rows = rows[rows_seen[rows]]
            logits = layer((train_x[rows] - mean) / scale)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, train_y[rows]).backward()
            optimizer.step()
            schedule.step()
    logits, of_test = (layer((x - mean) / scale).detach() for x in (train_x, test_x))
    losses = nn.functional.cross_entropy(logits, train_y, reduction="none")
    return logits.argmax(dim=1) == train_y, losses, (of_test.argmax(dim=1) == test_y).double().mean().item()


def test_the_grid_is_torchs_sgd_at_every_rate_and_the_best_on_the_held_out_tenth_is_reported(split):
    settings = dict(epochs=2, batch_size=100, seed=3)
    rates = (1e-3, 1e-2, 0.3)
    result = sgd_probe(*split, rates=rates, **settings)
    held_out = held_out_tenth(split[1], seed=3)
    for rate in rates:
        right, _, _ = plain_probe(*split, rows_seen=~held_out, rate=rate, **settings)
        assert result.held_out_accuracy[rate] == pytest.approx(right[held_out].double().mean().item(), abs=1e-9)
    best = max(rates, key=lambda rate: result.held_out_accuracy[rate])
    assert sorted(result.held_out_accuracy.values())[-2] < result.held_out_accuracy[best]  # no tie
    assert result.rate == best
    _, _, accuracy = plain_probe(*split, rows_seen=torch.ones_like(held_out), rate=best, **settings)
    assert result.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert (result.n_train, result.n_held_out, result.n_test) == (1300, int(held_out.sum()), 497)


def test_among_rates_of_equal_accuracy_the_one_of_lowest_cross_entropy_is_chosen():
    train_x, train_y = clouds(200, 6, 10, spread=0.1)
    rates, settings = (1e-3, 0.1, 0.3), dict(epochs=8, batch_size=20, seed=0)
    result = sgd_probe(train_x, train_y, train_x, train_y, rates=rates, **settings)
    held_out = held_out_tenth(train_y, seed=0)
    split = train_x, train_y, train_x, train_y
    losses = {
        rate: plain_probe(*split, rows_seen=~held_out, rate=rate, **settings)[1][held_out].mean() for rate in rates
    }
    assert result.held_out_accuracy[0.1] == result.held_out_accuracy[0.3] > result.held_out_accuracy[1e-3]
    assert result.rate == min(losses, key=losses.get) == 0.3


def test_a_rate_that_diverges_is_not_chosen(split):
    result = sgd_probe(*split, rates=[1e-2, 3e38], epochs=2)
    assert result.rate == 1e-2 and result.held_out_accuracy[3e38] < 0.2


def test_the_choice_does_not_look_at_the_test_split(split):
    train_x, train_y, test_x, test_y = split
    plain = sgd_probe(*split, epochs=1)
    other = sgd_probe(train_x, train_y, test_x.flip(0), test_y, epochs=1)
    assert (plain.rate, plain.held_out_accuracy) == (other.rate, other.held_out_accuracy)
    assert plain.accuracy != other.accuracy


def test_scale_and_shift_of_the_features_change_nothing(split):
    train_x, train_y, test_x, test_y = split
    plain = sgd_probe(*split, epochs=2)
    moved = sgd_probe(300 * train_x + 7, train_y, 300 * test_x + 7, test_y, epochs=2)
    assert moved.accuracy == pytest.approx(plain.accuracy, abs=3e-3)
    assert moved.held_out_accuracy == pytest.approx(plain.held_out_accuracy, abs=0.02)


def test_it_learns_what_the_exact_probe_learns(split):
    assert sgd_probe(*split, epochs=40).accuracy > 0.94


def test_a_view_is_asked_for_every_row_once_an_epoch_and_is_what_the_layer_sees(split):
    train_x = split[0]
    asked = []

    def view(epoch, rows):
        asked.append((epoch, rows))
        return train_x[rows]

    assert sgd_probe(*split, epochs=2, view=view) == sgd_probe(*split, epochs=2)
    for epoch in range(2):
        rows = torch.cat([rows for which, rows in asked if which == epoch])
        assert rows.sort().values.tolist() == list(range(1300))

    blind = sgd_probe(*split, epochs=2, view=lambda epoch, rows: torch.zeros(len(rows), 64))
    assert blind.accuracy < 0.3


def test_labels_need_not_be_consecutive(split):
    train_x, train_y, test_x, test_y = split
    renamed = sgd_probe(train_x, 7 * train_y + 3, test_x, 7 * test_y + 3, epochs=1)
    assert renamed == sgd_probe(*split, epochs=1)


def test_a_choice_at_the_edge_of_the_grid_is_told(split):
    assert sgd_probe(*split, rates=[1e-2], epochs=1).at_grid_edge


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": []}, "one or more positive"),
        ({"rates": [0.0]}, "one or more positive"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused(split, settings, message):
    with pytest.raises(ValueError, match=message):
        sgd_probe(*split, **settings)


def test_a_single_image_per_class_is_refused_with_the_way_out():
    x, y = clouds(4, 3, 4)
    with pytest.raises(ValueError, match="use few_shot"):
        sgd_probe(x, y, x, y)
