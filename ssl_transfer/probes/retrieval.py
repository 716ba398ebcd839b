"""Retrieval within one split: does an image find the others of its class first?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_k, check_labeled
from ssl_transfer.probes.nearest_neighbors import Metric, nearest


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries, which are all images except those that are alone in their class."""

    recall: dict[int, float]
    map_at_r: float
    r_precision: float
    n_queries: int


def retrieval(
    x: Float[Tensor, "n d"],
    y: Int64[Tensor, " n"],
    *,
    k: Sequence[int] = (1, 2, 4, 8),
    metric: Metric = "cosine",
    queries: int | None = None,
) -> RetrievalScores:
    """Recall@K, MAP@R and R-precision of images that are each searched among all others.

    Recall@K is the share of the queries that have an image of their class among the K nearest, for each K in ``k``. If
    the query's class has R other images, R-precision is the share of them among the R nearest, and MAP@R is the mean
    over the places 1 to R of the precision up to that place where the image there is of the class, and of zero
    elsewhere (Musgrave et al., "A metric learning reality check", ECCV 2020). A query is left out of its own search by
    index, so a copy of it counts. An image that is alone in its class can find nothing and is no query. With
    ``queries``, that number of images, the first ones, are the queries, and only the others, the gallery, are searched.

    Raises:
        ValueError: rows are not finite or have no label, there is nothing to find for any query, or a number in ``k``
            is below 1 or above the number of images to search.
    """
    check_labeled(x, y, "retrieval")
    others = images_to_find(y, k=k, queries=queries)
    n_queries = int((others > 0).sum())
    _, code = y.unique(return_inverse=True)
    asking, searched = _asking_and_searched(queries)
    alone = queries is None  # in one set, where an image must not find itself
    found = dict.fromkeys(k, 0)
    map_at_r = r_precision = 0.0
    depths = max(*k, int(others.max()))
    searches = nearest(x[asking], x[searched], depths, metric=metric, exclude_self=alone, device=y.device)
    for neighbors in searches:
        is_query = others[neighbors.rows] > 0
        match = (code[searched][neighbors.index] == code[asking][neighbors.rows, None])[is_query]
        for depth in k:
            found[depth] += int(match[:, :depth].any(dim=1).sum())
        precision, average = _at_r(match, others[neighbors.rows][is_query])
        r_precision += precision.sum().item()
        map_at_r += average.sum().item()
    return RetrievalScores(
        recall={depth: count / n_queries for depth, count in found.items()},
        map_at_r=map_at_r / n_queries,
        r_precision=r_precision / n_queries,
        n_queries=n_queries,
    )


def images_to_find(
    y: Int64[Tensor, " n"], *, k: Sequence[int], queries: int | None = None
) -> Int64[Tensor, " n_queries"]:
    """For each query, how many of the images that are searched are of its class; see :func:`retrieval`.

    Raises:
        ValueError: there is nothing to find for any query, or a number in ``k`` is below 1 or above the number of
            images to search.
    """
    if not k or min(k) < 1:
        raise ValueError(f"k is {list(k)}; give one or more numbers of neighbors, each at least 1.")
    _, code = y.unique(return_inverse=True)
    asking, searched = _asking_and_searched(queries)
    itself = int(queries is None)
    others = code[searched].bincount(minlength=int(code.max()) + 1)[code[asking]] - itself
    if not (others > 0).any():
        raise ValueError(
            "every image is alone in its class, so there is nothing to retrieve; give two or more images of some class."
        )
    check_k(max(k), len(code[searched]) - itself)
    return others


def _asking_and_searched(queries: int | None) -> tuple[slice, slice]:
    return (slice(None), slice(None)) if queries is None else (slice(queries), slice(queries, None))


def _at_r(match: Bool[Tensor, "q k"], r: Int64[Tensor, " q"]) -> tuple[Float[Tensor, " q"], Float[Tensor, " q"]]:
    """R-precision and MAP@R of each query."""
    place = torch.arange(1, match.shape[1] + 1, device=match.device)
    relevant = match & (place <= r[:, None])
    precision = relevant.cumsum(dim=1, dtype=torch.float64) / place
    return relevant.sum(dim=1) / r.double(), (precision * relevant).sum(dim=1) / r
