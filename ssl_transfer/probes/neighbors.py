"""Exact nearest neighbors by brute force, tiled on both sides so that memory does not grow with the bank."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_k
from ssl_transfer.probes.search import new_buffer, search
from ssl_transfer.probes.shortlist import Shortlist, pays

Metric = Literal["cosine", "euclidean"]
QUERY_ROWS = 256  # in a tile


@dataclass(frozen=True)
class Neighbors:
    """The ``k`` most similar bank rows of some queries, most similar first."""

    rows: slice
    similarity: Float[Tensor, "q k"]
    index: Int64[Tensor, "q k"]


def nearest(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    k: int,
    *,
    metric: Metric = "cosine",
    exclude_self: bool = False,
) -> Iterator[Neighbors]:
    """Walk over the queries in tiles and yield the ``k`` nearest bank rows of each.

    ``similarity`` is the cosine, or minus the squared Euclidean distance. With ``exclude_self``,
    ``queries`` is ``bank`` and row i is never its own neighbor: by index, so a duplicate of it elsewhere
    still counts. Which of several equally similar rows takes the last place is not defined, as in
    scikit-learn.
    """
    check_k(k, len(bank) - exclude_self)
    queries, bank = (x if x.dtype == torch.float64 else x.float() for x in (queries, bank))
    if metric == "cosine":
        # The bank is not copied to be normalized: its lengths divide the products afterwards.
        center, scale, offset = None, 1 / torch.linalg.vector_norm(bank, dim=1).clamp(min=1e-12), None
    else:
        # Distances do not change when everything moves, and float32 keeps more digits near the origin.
        center = bank.mean(dim=0)
        bank = bank - center
        scale, offset = None, bank.square().sum(dim=1) / -2
    buffer = new_buffer(min(QUERY_ROWS, len(queries)), bank)
    find: Callable[..., tuple[Tensor, Tensor]] = partial(
        search, bank=bank, k=k, scale=scale, offset=offset, buffer=buffer
    )
    if pays(len(queries), bank, k):
        find = Shortlist(bank, k, scale=scale, offset=offset, buffer=buffer)
    for start in range(0, len(queries), QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, len(queries)))
        tile = queries[rows] - center if center is not None else F.normalize(queries[rows], dim=1)
        own = torch.arange(rows.start, rows.stop, device=bank.device) if exclude_self else None
        score, index = find(tile, own=own)
        similarity = 2 * score - tile.square().sum(dim=1, keepdim=True) if center is not None else score
        yield Neighbors(rows, similarity, index)
