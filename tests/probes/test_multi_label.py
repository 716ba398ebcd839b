import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from ssl_transfer.probes import mean_average_precision, multi_label_probe
from ssl_transfer.probes.logistic import fit_binary_path
from ssl_transfer.probes.multi_label import check_presence
from ssl_transfer.probes.splits import held_out_share


def tagged(n: int, d: int, *, seed: int):
    """Features of images of four classes, any of which an image may have; of some it is not to be looked at."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(d, 4, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, d, generator=generator)
    score = x @ weight / d**0.5 + 0.5 * torch.randn(n, 4, generator=generator)
    presence = torch.where(score > torch.tensor([0.0, 0.5, 1.0, -0.5]), 1, -1)
    presence[::7, 1] = 0
    return x + 3, presence


def eleven_points(score, present) -> float:
    """Everingham et al. (IJCV 2010), equations 1 and 2, as loops."""
    order = np.argsort(-score, kind="stable")
    points = []
    for rank in range(1, len(order) + 1):
        if rank == len(order) or score[order[rank]] != score[order[rank - 1]]:
            found = present[order[:rank]].sum()
            points.append((found, found / rank))
    return np.mean([max(p for found, p in points if 10 * found >= tenth * present.sum()) for tenth in range(11)])


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_equals_scikit_learn_and_the_definition_of_voc(ties):
    x, presence = tagged(150, 4, seed=0)
    scores = x.double().round() if ties else x.double()
    columns = [
        (score[own != 0].numpy(), own[own != 0].numpy() > 0) for score, own in zip(scores.T, presence.T, strict=True)
    ]
    expected = np.mean([average_precision_score(present, score) for score, present in columns])
    assert mean_average_precision(scores, presence) == pytest.approx(expected, abs=1e-12)
    expected = np.mean([eleven_points(score, present) for score, present in columns])
    assert mean_average_precision(scores, presence, eleven_points=True) == pytest.approx(expected, abs=1e-12)


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten():
    presence = torch.tensor([1, 1, 1, *[-1] * 20, *[1] * 7])[:, None]
    scores = torch.arange(30, 0, -1.0)[:, None]
    found = mean_average_precision(scores, presence, eleven_points=True)
    assert found == pytest.approx((4 * 1 + 7 * 10 / 30) / 11)


@pytest.mark.parametrize(("n", "d"), [(200, 12), (60, 90)])
def test_every_classifier_equals_scikit_learn(n, d):
    """Also where rows are fewer than features."""
    x, presence = tagged(n, d, seed=1)
    penalties = torch.tensor([1e-3, 1.0, 50.0], dtype=torch.float64)
    fit = fit_binary_path(x.double(), presence, penalties / n)
    assert fit.converged.all()
    for penalty, parameters in zip(penalties.tolist(), fit.parameters, strict=True):
        for column, own in enumerate(parameters):
            rows = presence[:, column] != 0
            model = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=50_000)
            model.fit(x[rows].double(), presence[rows, column])
            expected = np.append(model.coef_, model.intercept_)
            np.testing.assert_allclose(own, expected, atol=2e-3 * np.abs(expected).max())


def test_the_whole_protocol_equals_scikit_learn_on_the_same_features():
    (train_x, train_y), (test_x, test_y) = tagged(240, 10, seed=2), tagged(150, 10, seed=3)
    found = multi_label_probe(train_x, train_y, test_x, test_y, penalties=[0.1, 10.0, 1e4])
    held_out = held_out_share(torch.zeros(240, dtype=torch.long), 5, seed=0)

    def score(fitted, penalty, x, truth) -> float:
        precisions = []
        for column in range(4):
            rows = fitted & (train_y[:, column] != 0)
            model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20_000)
            model.fit(train_x[rows].double(), train_y[rows, column])
            judged = truth[:, column] != 0
            scores = model.decision_function(x[judged].double())
            precisions.append(average_precision_score(truth[judged, column] > 0, scores))
        return float(np.mean(precisions))

    for penalty, value in found.held_out.items():
        assert value == pytest.approx(score(~held_out, penalty, train_x[held_out], train_y[held_out]), abs=1e-6)
    assert found.held_out[found.penalty] == max(found.held_out.values())
    everything = torch.ones(240, dtype=torch.bool)
    assert found.score == pytest.approx(score(everything, found.penalty, test_x, test_y), abs=1e-6)
    assert found.measure == "mAP" and found.converged


def test_an_image_that_is_not_looked_at_changes_nothing_of_its_class():
    (train_x, train_y), (test_x, test_y) = tagged(240, 10, seed=2), tagged(150, 10, seed=3)
    options = {"held_out": torch.arange(240) >= 180, "eleven_points": True, "penalties": [1.0]}
    plain = multi_label_probe(train_x, train_y[:, 1:2], test_x, test_y[:, 1:2], **options)
    kept, scored = train_y[:, 1] != 0, test_y[:, 1] != 0
    without = multi_label_probe(
        train_x[kept],
        train_y[kept, 1:2],
        test_x[scored],
        test_y[scored, 1:2],
        **(options | {"held_out": options["held_out"][kept]}),
    )
    assert plain.score == pytest.approx(without.score, abs=1e-9)
    assert plain.measure == "11-point mAP"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.float(), "other values than 1"),
        (lambda y: y * 2, "other values than 1"),
        (lambda y: y[:-1], "a row for each image"),
        (lambda y: y[:, 0], "a row for each image"),
    ],
)
def test_what_is_no_table_of_presence_is_refused(change, words):
    x, y = tagged(60, 5, seed=4)
    with pytest.raises(ValueError, match=words):
        check_presence(x, change(y), "train")


@pytest.mark.parametrize("presence", [-1, 1])
def test_a_class_of_all_images_or_none_is_refused(presence):
    x, y = tagged(60, 5, seed=4)
    with pytest.raises(ValueError, match="class 0 is in all or in none"):
        multi_label_probe(x, torch.full_like(y, presence), x, y)


def test_a_class_that_is_never_scored_is_refused():
    x, y = tagged(60, 5, seed=4)
    absent = y.clone()
    absent[:, 2] = -1
    with pytest.raises(ValueError, match="present in none of the rows that are scored"):
        multi_label_probe(x, y, x, absent, penalties=[1.0])
