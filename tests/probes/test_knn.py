import pytest
import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict as lightly_knn_predict
from sklearn.neighbors import KNeighborsClassifier

from ssl_transfer.probes import knn_accuracy, knn_leave_one_out, knn_predict, nearest_neighbors
from ssl_transfer.probes.nearest_neighbors import nearest
from tests.probes.synthetic import clouds
from tests.reference import probes as twin


@pytest.fixture(params=["one tile", "many tiles"])
def tiles(request, monkeypatch):
    """The same search in one piece and cut into many uneven ones."""
    if request.param == "many tiles":
        monkeypatch.setattr(nearest_neighbors, "QUERY_ROWS", 7)
        monkeypatch.setattr(nearest_neighbors, "BANK_ROWS", 64)


@pytest.fixture(scope="module")
def data():
    return *clouds(400, 12, 5, spread=2.0, seed=1), *clouds(90, 12, 5, spread=2.0, seed=2)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 25, 400])
def test_majority_vote_equals_scikit_learn_ties_included(data, tiles, metric, k):
    train_x, train_y, test_x, _ = data
    ours = knn_predict(train_x, train_y, test_x, k=k, metric=metric, weighted=False)
    theirs = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(train_x.numpy(), train_y.numpy())
    assert ours.tolist() == theirs.predict(test_x.numpy()).tolist()


def test_even_k_has_ties_of_votes_in_these_data(data):
    """Or the test above would not show the tie rule."""
    train_x, train_y, test_x, _ = data
    votes = (
        torch.stack([F.one_hot(train_y[i], 5).sum(0) for n in nearest(test_x, train_x, 4) for i in n.index])
        .sort(dim=1, descending=True)
        .values
    )
    assert (votes[:, 0] == votes[:, 1]).sum() > 5


@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_weighted_vote_equals_the_published_formula(data, tiles, temperature):
    train_x, train_y, test_x, _ = data
    ours = knn_predict(train_x, train_y, test_x, k=30, temperature=temperature)
    for i, query in enumerate(test_x[:25]):
        votes = twin.knn_votes(train_x.double(), train_y, query.double(), 30, temperature, num_classes=5)
        assert votes[ours[i]] == pytest.approx(max(votes), rel=1e-6)


def test_weighted_vote_equals_lightly(data):
    train_x, train_y, test_x, _ = data
    ours = knn_predict(train_x, train_y, test_x, k=200, temperature=0.1)
    theirs = lightly_knn_predict(
        F.normalize(test_x), F.normalize(train_x).T.contiguous(), train_y, num_classes=5, knn_k=200, knn_t=0.1
    )
    assert ours.tolist() == theirs[:, 0].tolist()


def test_one_search_gives_the_same_accuracies_as_one_search_each(data, tiles):
    train_x, train_y, test_x, test_y = data
    together = knn_accuracy(train_x, train_y, test_x, test_y, k=[50, 1, 7], temperature=[0.07, 1.0])
    assert set(together) == {(k, t) for k in (1, 7, 50) for t in (0.07, 1.0)}
    for (k, temperature), accuracy in together.items():
        predicted = knn_predict(train_x, train_y, test_x, k=k, temperature=temperature)
        assert accuracy == (predicted == test_y).double().mean().item()


def test_leave_one_out_equals_searching_the_other_rows_for_each_row(data, tiles):
    x, y = data[0][:60], data[1][:60]
    correct = 0
    for i in range(60):
        others = torch.arange(60) != i
        correct += int(knn_predict(x[others], y[others], x[i : i + 1], k=5)[0] == y[i])
    assert knn_leave_one_out(x, y, k=5)[5, 0.1] == correct / 60


def test_leave_one_out_still_finds_a_duplicate_of_the_row(tiles):
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    y = torch.arange(40).repeat(2)
    assert knn_leave_one_out(x, y, k=1, weighted=False) == {(1, None): 1.0}


def test_a_tiny_temperature_does_not_overflow(data):
    train_x, train_y, test_x, test_y = data
    nearest_only = knn_accuracy(train_x, train_y, test_x, test_y, k=1)[1, 0.1]
    assert knn_accuracy(train_x, train_y, test_x, test_y, k=50, temperature=1e-5)[50, 1e-5] == nearest_only


def test_labels_need_not_be_consecutive(data):
    train_x, train_y, test_x, _ = data
    renamed = torch.tensor([3, 1000, 1001, 5000, 70000])
    plain = knn_predict(train_x, train_y, test_x, k=9)
    assert knn_predict(train_x, renamed[train_y], test_x, k=9).tolist() == renamed[plain].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 401}, "k is 401 but there are 400 images to search"),
        ({"k": [0, 3]}, "at least 1"),
        ({"k": []}, "at least 1"),
        ({"k": 3, "temperature": 0.0}, "temperature is 0.0"),
        ({"k": 3, "metric": "euclidean"}, "no meaning for the euclidean metric"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(data, options, message):
    with pytest.raises(ValueError, match=message):
        knn_accuracy(*data, **options)


def test_leave_one_out_has_one_neighbor_less(data):
    with pytest.raises(ValueError, match="there are 399 images to search"):
        knn_leave_one_out(data[0], data[1], k=400)


def test_test_features_that_are_not_finite_get_no_class(data):
    train_x, train_y, test_x, _ = data
    with pytest.raises(ValueError, match="test_x has 90 of 90 rows that are not finite"):
        knn_predict(train_x, train_y, test_x * torch.nan, k=3)


def test_missing_labels_are_refused(data):
    train_x, train_y, test_x, test_y = data
    with pytest.raises(ValueError, match="train_y has 80 of 400 labels missing"):
        knn_accuracy(train_x, train_y - 1, test_x, test_y, k=3)
