"""Nearest-neighbor classification, a score without a classifier to train and so without anything to tune."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_features, check_labeled, check_same_width, check_splits
from ssl_transfer.probes.nearest_neighbors import Metric, Neighbors, nearest

KnnScores = dict[tuple[int, float | None], float]


def knn_accuracy(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    test_y: Int64[Tensor, " n_test"],
    *,
    k: Sequence[int] | int,
    temperature: Sequence[float] | float = 0.1,
    metric: Metric = "cosine",
    weighted: bool = True,
) -> KnnScores:
    """Share of the test rows that their nearest neighbors in the training split classify rightly.

    Each of the ``k`` nearest training rows votes for its class with the weight exp(cosine / temperature) (Wu et al.,
    "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018), or with the weight one if
    not ``weighted``. Of classes with equal votes that of the smallest label wins, as in scikit-learn. The result has an
    accuracy for every pair (k, temperature) of the given ones, all from one search; without weights the temperature in
    it is None.

    Raises:
        ValueError: the splits cannot be scored against each other, ``k`` or ``temperature`` is not in its range, or
            votes are to be weighted under the Euclidean metric.
    """
    check_splits(train_x, train_y, test_x, test_y)
    ks, temperatures = _grid(k, temperature, metric, weighted)
    found = nearest(test_x, train_x, max(ks), metric=metric, device=train_y.device)
    return _accuracies(found, train_y, test_y, ks, temperatures)


def knn_leave_one_out(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    *,
    k: Sequence[int] | int,
    temperature: Sequence[float] | float = 0.1,
    metric: Metric = "cosine",
    weighted: bool = True,
) -> KnnScores:
    """:func:`knn_accuracy` of one split, each row of which is classified by the others.

    It serves to choose k, or to watch a training run, without the test split.

    Raises:
        ValueError: rows are not finite or have no label, ``k`` or ``temperature`` is not in its range, or votes are to
            be weighted under the Euclidean metric.
    """
    check_labeled(x, y, "train")
    ks, temperatures = _grid(k, temperature, metric, weighted)
    found = nearest(x, x, max(ks), metric=metric, exclude_self=True, device=y.device)
    return _accuracies(found, y, y, ks, temperatures)


def knn_predict(
    train_x: Float[Tensor, "n_train d"],
    train_y: Int64[Tensor, " n_train"],
    test_x: Float[Tensor, "n_test d"],
    *,
    k: int,
    temperature: float = 0.1,
    metric: Metric = "cosine",
    weighted: bool = True,
) -> Int64[Tensor, " n_test"]:
    """The class that each test row gets from its neighbors in the training split; see :func:`knn_accuracy`.

    Raises:
        ValueError: rows are not finite, have no label or other dimensions, ``k`` or ``temperature`` is not in its
            range, or votes are to be weighted under the Euclidean metric.
    """
    check_labeled(train_x, train_y, "train")
    check_features(test_x, "test_x")
    check_same_width(train_x, test_x)
    ks, temperatures = _grid(k, temperature, metric, weighted)
    classes, code = train_y.unique(return_inverse=True)
    tiles = [
        votes.argmax(dim=1)
        for neighbors in nearest(test_x, train_x, k, metric=metric, device=train_y.device)
        for _, votes in _votes(neighbors, code, len(classes), ks, temperatures[0])
    ]
    return classes[torch.cat(tiles)]


def _grid(
    k: Sequence[int] | int, temperature: Sequence[float] | float, metric: Metric, weighted: bool
) -> tuple[list[int], list[float | None]]:
    ks = sorted({k} if isinstance(k, int) else set(k))
    if not ks or ks[0] < 1:
        raise ValueError(f"k is {k}; give one or more numbers of neighbors, each at least 1.")
    if not weighted:
        return ks, [None]
    if metric != "cosine":
        raise ValueError(
            f"the weights exp(cosine / temperature) have no meaning for the {metric} metric; "
            'use weighted=False or metric="cosine".'
        )
    temperatures = [temperature] if isinstance(temperature, (int, float)) else list(temperature)
    if not temperatures or min(temperatures) <= 0:
        raise ValueError(f"temperature is {temperature}; give one or more positive numbers.")
    return ks, [float(t) for t in temperatures]


def _accuracies(
    found: Iterator[Neighbors],
    train_y: Tensor,
    test_y: Tensor,
    ks: list[int],
    temperatures: list[float | None],
) -> KnnScores:
    classes, code = train_y.unique(return_inverse=True)
    correct = {(k, temperature): 0 for temperature in temperatures for k in ks}
    for neighbors in found:
        truth = test_y[neighbors.rows]
        for temperature in temperatures:
            for k, votes in _votes(neighbors, code, len(classes), ks, temperature):
                correct[k, temperature] += int((classes[votes.argmax(dim=1)] == truth).sum())
    return {key: count / len(test_y) for key, count in correct.items()}


def _votes(
    neighbors: Neighbors, labels: Tensor, num_classes: int, ks: list[int], temperature: float | None
) -> Iterator[tuple[int, Tensor]]:
    """Votes per class of the k nearest, for ascending k: each adds the neighbors the last one lacked.

    ``argmax`` of the votes takes the first of equal maxima, hence the smallest label.
    """
    similarity = neighbors.similarity.double()
    if temperature is None:
        weight = torch.ones_like(similarity)
    else:
        # Relative to the nearest: the same winner, and no overflow at a small temperature.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
    label = labels[neighbors.index]
    votes = weight.new_zeros(len(label), num_classes)
    done = 0
    for k in ks:
        votes.scatter_add_(1, label[:, done:k], weight[:, done:k])
        done = k
        yield k, votes
