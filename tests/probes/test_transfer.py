import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from ssl_transfer.probes import PENALTIES, mean_per_class, transfer_probe
from ssl_transfer.probes.splits import held_out_share
from tests.probes.synthetic import clouds


@pytest.fixture(scope="module")
def split():
    train, test = clouds(300, 12, 5, spread=3.0), clouds(200, 12, 5, spread=3.0, seed=1)
    return *train, *test


def unequal(y):
    """Rows of classes of very different size."""
    return torch.cat([(y == c).nonzero()[: 8 * (c + 1), 0] for c in range(5)])


def theirs(x, y, penalty: float) -> LogisticRegression:
    return LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000).fit(x.double().numpy(), y.numpy())


def test_the_grid_is_that_of_the_publications():
    np.testing.assert_allclose(PENALTIES, np.logspace(-6, 5, 45), rtol=1e-12)


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (500.0, 1.0), (0.0, 1e-3), (0.0, 1e18)])
def test_the_whole_protocol_equals_scikit_learn_on_the_same_features(split, offset, scale):
    """Neither where features lie nor how large they are changes a fit, but for what the penalty makes of their size."""
    train_x, train_y, test_x, test_y = split
    penalties = [0.01 * scale**2, scale**2, 30 * scale**2]
    moved = [(x.double() + offset) * scale for x in (train_x, test_x)]
    found = transfer_probe(moved[0], train_y, moved[1], test_y, penalties=penalties)
    held_out = held_out_share(train_y, 5, seed=0)
    assert found.converged and found.n_held_out == held_out.sum() == 60
    plain = train_x.double()
    judged = {}
    for penalty in penalties:
        model = theirs(plain[~held_out], train_y[~held_out], penalty / scale**2)
        judged[penalty] = model.score(plain[held_out], train_y[held_out])
        assert found.held_out[penalty] == pytest.approx(judged[penalty])
    final = theirs(plain, train_y, found.penalty / scale**2)
    assert judged[found.penalty] == max(judged.values())
    assert found.score == pytest.approx(final.score(test_x.double(), test_y))


def test_a_predefined_validation_split_chooses_the_penalty_and_is_fitted_on_in_the_end(split):
    train_x, train_y, test_x, test_y = split
    held_out = torch.arange(300) >= 200
    found = transfer_probe(train_x, train_y, test_x, test_y, held_out=held_out, penalties=[0.1, 10.0])
    models = {penalty: theirs(train_x[:200], train_y[:200], penalty) for penalty in (0.1, 10.0)}
    for penalty, model in models.items():
        assert found.held_out[penalty] == pytest.approx(model.score(train_x[200:], train_y[200:]))
    assert found.score == pytest.approx(theirs(train_x, train_y, found.penalty).score(test_x, test_y))
    assert found.n_train == 300 and found.n_held_out == 100


def test_mean_per_class_is_chosen_and_scored_by(split):
    train_x, train_y, test_x, test_y = split
    few = unequal(train_y)
    found = transfer_probe(train_x[few], train_y[few], test_x, test_y, measure="mean per class", penalties=[0.1, 1e4])
    held_out = held_out_share(train_y[few], 5, seed=0)
    for penalty, value in found.held_out.items():
        predicted = theirs(train_x[few][~held_out], train_y[few][~held_out], penalty).predict(train_x[few][held_out])
        assert value == pytest.approx(balanced_accuracy_score(train_y[few][held_out], predicted))
    predicted = theirs(train_x[few], train_y[few], found.penalty).predict(test_x)
    assert found.score == pytest.approx(balanced_accuracy_score(test_y, predicted))
    assert found.score == pytest.approx(mean_per_class(torch.from_numpy(predicted), test_y))


def test_a_class_that_only_the_validation_split_has_is_wrong_there_and_learned_in_the_end(split):
    train_x, train_y, test_x, test_y = split
    held_out = train_y == 4
    held_out[train_y == 3] = torch.arange(60) % 2 == 0
    found = transfer_probe(train_x, train_y, test_x, test_y, held_out=held_out, penalties=[1.0])
    assert found.held_out[1.0] <= 30 / 90
    assert found.score == pytest.approx(theirs(train_x, train_y, 1.0).score(test_x, test_y))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"penalties": []}, "give one or more positive numbers"),
        ({"penalties": [1.0, 0.0]}, "give one or more positive numbers"),
        ({"held_out": torch.ones(300, dtype=torch.bool)}, "300 of 300 training rows are held out"),
        ({"held_out": torch.zeros(300, dtype=torch.bool)}, "0 of 300 training rows are held out"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(split, options, words):
    with pytest.raises(ValueError, match=words):
        transfer_probe(*split, **options)


def test_classes_of_one_image_leave_nothing_to_choose_by():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="single training image"):
        transfer_probe(x, torch.arange(4), x, torch.arange(4))
