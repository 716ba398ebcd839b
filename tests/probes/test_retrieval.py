import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from ssl_transfer.probes import nearest_neighbors, retrieval
from tests.probes.synthetic import clouds
from tests.reference import probes as twin

DISTANCES = {"cosine": CosineSimilarity(), "euclidean": LpDistance(normalize_embeddings=False)}


def uneven_classes():
    """Classes of very different size, two of them of a single image.

    Few enough that no two similarities are so near that float32, which the peer works in, could swap them.
    """
    x, _ = clouds(60, 9, 6, spread=1.5)
    y = torch.tensor([0] * 25 + [1] * 15 + [2] * 10 + [3] * 8 + [4, 5])
    return x + 2 * clouds(6, 9, 6, spread=0)[0][y], y


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_queries_search_the_gallery_alone_as_in_pytorch_metric_learning(metric):
    x, y = uneven_classes()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y, queries = x[order], y[order], 20
    ours = retrieval(x, y, k=[1, 4], metric=metric, queries=queries)
    theirs = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "r_precision"),
        k="max_bin_count",
        knn_func=CustomKNN(DISTANCES[metric]),
        device=torch.device("cpu"),
    ).get_accuracy(x[:queries], y[:queries], x[queries:], y[queries:])
    assert ours.recall[1] == pytest.approx(theirs["precision_at_1"], abs=1e-6)
    assert ours.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert ours.r_precision == pytest.approx(theirs["r_precision"], abs=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("tile", [1024, 25])
def test_scores_equal_pytorch_metric_learning(metric, tile, monkeypatch):
    monkeypatch.setattr(nearest_neighbors, "QUERY_ROWS", tile)
    x, y = uneven_classes()
    ours = retrieval(x, y, k=[1, 4], metric=metric)
    theirs = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "r_precision"),
        k="max_bin_count",
        knn_func=CustomKNN(DISTANCES[metric]),
        device=torch.device("cpu"),
    ).get_accuracy(x, y)
    assert ours.recall[1] == pytest.approx(theirs["precision_at_1"], abs=1e-6)
    assert ours.map_at_r == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
    assert ours.r_precision == pytest.approx(theirs["r_precision"], abs=1e-6)


def test_scores_equal_the_formula_row_by_row():
    x, y = uneven_classes()
    ours = retrieval(x, y, k=[8], metric="euclidean")
    recall, map_at_r, r_precision = twin.retrieval(x.double(), y, 8)
    assert (ours.recall[8], ours.map_at_r, ours.r_precision) == pytest.approx((recall, map_at_r, r_precision))


def test_images_alone_in_their_class_are_no_queries():
    assert retrieval(*uneven_classes()).n_queries == 58


def test_a_copy_of_the_query_counts_as_found():
    """The query is left out by its index: leaving out distance zero would lose its copies."""
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    scores = retrieval(x, torch.arange(30).repeat(2), k=[1])
    assert scores.recall[1] == scores.map_at_r == scores.r_precision == 1


@pytest.mark.parametrize(
    ("y", "k", "message"),
    [
        (torch.arange(6), [1], "alone in its class"),
        (torch.zeros(6, dtype=torch.int64), [6], "there are 5 images to search"),
        (torch.zeros(6, dtype=torch.int64), [0], "at least 1"),
    ],
)
def test_impossible_searches_are_refused(y, k, message):
    with pytest.raises(ValueError, match=message):
        retrieval(torch.eye(6), y, k=k)
