import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_transfer.probes import few_shot
from ssl_transfer.probes.splits import rank_in_class
from tests.probes.synthetic import clouds


@pytest.fixture(scope="module")
def data():
    return *clouds(500, 20, 5, spread=1.0, seed=1), *clouds(200, 20, 5, spread=1.0, seed=2)


def test_scores_are_those_of_scikit_learn_on_centered_rows_of_norm_one(data):
    train_x, train_y, test_x, test_y = (part.numpy() for part in data)
    center = train_x.mean(axis=0)
    train, test = (x - center for x in (train_x, test_x))
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    accuracies = []
    for draw in range(4):
        rows = rank_in_class(data[1], 7, draw).numpy() < 3
        model = LogisticRegression(C=10, tol=1e-8, max_iter=1000).fit(train[rows], train_y[rows])
        accuracies.append(model.score(test, test_y))
    score = few_shot(*data, labels_per_class=[3], draws=4, seed=7)[3]
    assert score.mean == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert score.sd == pytest.approx(np.std(accuracies, ddof=1), abs=1e-6)
    assert (score.draws, score.labels) == (4, 15)


def test_a_fraction_takes_that_share_of_every_class_and_at_least_one_image(data):
    scores = few_shot(*data, labels_per_class=[0.05, 0.001, 5, 1], draws=3)
    assert scores[0.05] == scores[5] and scores[0.001] == scores[1]


def test_draws_are_functions_of_the_seed(data):
    first, again, other = (few_shot(*data, labels_per_class=[2], draws=5, seed=s)[2] for s in (0, 0, 1))
    assert first == again != other


def test_images_of_a_smaller_number_are_among_those_of_a_larger():
    y = torch.arange(40) % 4
    place = rank_in_class(y, 0, 3)
    for c in range(4):
        assert sorted(place[y == c].tolist()) == list(range(10))


def test_the_scale_of_the_features_changes_nothing(data):
    train_x, train_y, test_x, test_y = data
    plain = few_shot(*data, labels_per_class=[2], draws=3)[2]
    scaled = few_shot(1000 * train_x - 77, train_y, 1000 * test_x - 77, test_y, labels_per_class=[2], draws=3)[2]
    assert scaled.mean == pytest.approx(plain.mean, abs=2e-3)


def test_more_labels_score_better(data):
    scores = few_shot(*data, labels_per_class=[1, 20])
    assert scores[20].mean > scores[1].mean + 0.05
    assert scores[20].sd < scores[1].sd


@pytest.mark.parametrize(
    ("amount", "message"),
    [(101, "smallest class has 100"), (0, "fractions between 0 and 1"), (2.5, "whole numbers"), (-1, "whole numbers")],
)
def test_impossible_numbers_of_labels_are_refused(data, amount, message):
    with pytest.raises(ValueError, match=message):
        few_shot(*data, labels_per_class=[amount])


def test_no_draws_are_refused(data):
    with pytest.raises(ValueError, match="at least one draw"):
        few_shot(*data, labels_per_class=[1], draws=0)
