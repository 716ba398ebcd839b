"""Exact nearest neighbors by brute force, in tiles of queries and of the bank, so that memory grows with neither."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_k

Metric = Literal["cosine", "euclidean"]
# Rows in a tile of queries and of the bank. Its scores take 64 MiB of float32. It is wide rather than high, since the
# best of each tile have to be found and merged with those of the others.
QUERY_ROWS = 256
BANK_ROWS = 65_536


@dataclass(frozen=True)
class Neighbors:
    """The ``k`` most similar bank rows of the queries ``rows``, most similar first."""

    rows: slice
    similarity: Float[Tensor, "q k"]
    index: Int64[Tensor, "q k"]


@torch.no_grad()
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
    # Distances do not change when everything moves, and float32 keeps more digits near the origin.
    center = bank.mean(dim=0) if metric == "euclidean" else None
    search = _Search(bank if center is None else bank - center, k, metric, len(queries))
    for start in range(0, len(queries), QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, len(queries)))
        tile = F.normalize(queries[rows], dim=1) if center is None else queries[rows] - center
        own = torch.arange(rows.start, rows.stop, device=bank.device) if exclude_self else None
        yield Neighbors(rows, *search(tile, own))


class _Search:
    """The most similar bank rows of some queries, which are of length one for cosines."""

    def __init__(self, bank: Float[Tensor, "n d"], k: int, metric: Metric, queries: int):
        self.bank, self.k, self.cosine = bank, k, metric == "cosine"
        if self.cosine:  # the bank is not copied to be normalized: its lengths divide the products
            self.of_rows = 1 / torch.linalg.vector_norm(bank, dim=1).clamp(min=1e-12)
        else:  # |query - row|^2 = |query|^2 - 2 (query . row - |row|^2 / 2)
            self.of_rows = bank.square().sum(dim=1) / -2
        # Fresh memory for every tile would cost as much as a tenth of the product.
        self.buffer = bank.new_empty(min(QUERY_ROWS, queries) * min(BANK_ROWS, len(bank)))

    def __call__(
        self, queries: Float[Tensor, "q d"], own: Int64[Tensor, " q"] | None
    ) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
        """Similarity and index of the neighbors of each query; none finds the row ``own``."""
        best = queries.new_empty(len(queries), 0)
        index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        for first in range(0, len(self.bank), BANK_ROWS):
            columns = slice(first, min(first + BANK_ROWS, len(self.bank)))
            values, place = self._scores(queries, columns, own).topk(min(self.k, columns.stop - first), dim=1)
            best, index = torch.cat([best, values], dim=1), torch.cat([index, place + first], dim=1)
            if first > 0:
                best, kept = best.topk(min(self.k, best.shape[1]), dim=1)
                index = index.gather(1, kept)
        return best if self.cosine else 2 * best - queries.square().sum(dim=1, keepdim=True), index

    def _scores(self, queries: Tensor, columns: slice, own: Tensor | None) -> Float[Tensor, "q columns"]:
        """What orders the bank rows of a tile, the largest first."""
        shape = len(queries), columns.stop - columns.start
        scores = torch.mm(queries, self.bank[columns].T, out=self.buffer[: shape[0] * shape[1]].view(shape))
        scores = scores.mul_(self.of_rows[columns]) if self.cosine else scores.add_(self.of_rows[columns])
        if own is not None:
            inside = ((own >= columns.start) & (own < columns.stop)).nonzero()[:, 0]
            scores[inside, own[inside] - columns.start] = -torch.inf
        return scores
