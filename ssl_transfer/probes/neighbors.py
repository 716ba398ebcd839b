"""Exact nearest neighbours by brute force, tiled on both sides so that memory does not grow with the bank."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

Metric = Literal["cosine", "euclidean"]

QUERY_ROWS = 1024
# Similarities held at once: 1,024 queries x 16,384 bank rows of float32 are 64 MiB.
BANK_ROWS = 16_384
# A row of similarities is cut into blocks of this many; only the blocks with the largest maxima are looked
# into.
BLOCK = 16


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
    ``queries`` is ``bank`` and row i is never its own neighbour: by index, so a duplicate of it elsewhere
    still counts. Which of several equally similar rows takes the last place is not defined, as in
    scikit-learn.
    """
    available = len(bank) - exclude_self
    if not 1 <= k <= available:
        raise ValueError(f"k is {k} but there are {available} images to search; choose k between 1 and {available}.")
    queries, bank = (x if x.dtype == torch.float64 else x.float() for x in (queries, bank))
    # Distances do not change when everything moves, and float32 keeps more digits near the origin.
    center = bank.mean(dim=0) if metric == "euclidean" else None
    for start in range(0, len(queries), QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, len(queries)))
        yield _search(queries[rows], bank, k, rows, center, exclude_self)


def _search(queries: Tensor, bank: Tensor, k: int, rows: slice, center: Tensor | None, exclude_self: bool) -> Neighbors:
    """The neighbours of one tile of queries: the best of each tile of the bank, merged on the way."""
    queries = _prepare(queries, center)
    similarity = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BANK_ROWS):
        tile = _prepare(bank[start : start + BANK_ROWS], center)
        scores = queries @ tile.T
        if center is not None:
            scores.mul_(2).sub_(tile.square().sum(dim=1))
        if exclude_self:
            _exclude_diagonal(scores, rows.start - start)
        best, position = top_k(scores, min(k, len(tile)))
        similarity = torch.cat([similarity, best], dim=1)
        index = torch.cat([index, position + start], dim=1)
        if similarity.shape[1] > k:
            similarity, keep = similarity.topk(k, dim=1)
            index = index.gather(1, keep)
    if center is not None:
        similarity = similarity - queries.square().sum(dim=1, keepdim=True)
    return Neighbors(rows, similarity, index)


def _prepare(x: Tensor, center: Tensor | None) -> Tensor:
    return F.normalize(x, dim=1) if center is None else x - center


def _exclude_diagonal(scores: Tensor, offset: int) -> None:
    """Query row i is bank row ``i + offset`` of this tile: make that pair the least similar of all."""
    row = torch.arange(len(scores), device=scores.device)
    inside = (row + offset >= 0) & (row + offset < scores.shape[1])
    scores[row[inside], row[inside] + offset] = -torch.inf


def top_k(scores: Float[Tensor, "q n"], k: int) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """Values and positions of the ``k`` largest of each row, largest first; ``topk``, faster on long rows.

    If a value of the top k lay in a block that is not among the k blocks with the largest maxima, k other
    blocks would each hold a value at least as large. So k blocks are enough, and whole blocks are skipped
    by one maximum.
    """
    n = scores.shape[1]
    blocks = n // BLOCK
    if blocks <= 2 * k:
        values, columns = scores.topk(k, dim=1)
        return values, columns
    # Block b holds columns b, b + blocks, b + 2 blocks, ...: the maximum then runs over whole contiguous
    # rows.
    whole = scores[:, : blocks * BLOCK].unflatten(1, (BLOCK, blocks))
    chosen = whole.amax(dim=1).topk(k, dim=1, sorted=False).indices
    candidates = whole.gather(2, chosen[:, None, :].expand(-1, BLOCK, -1)).flatten(start_dim=1)
    columns = chosen[:, None, :] + blocks * torch.arange(BLOCK, device=scores.device)[:, None]
    rest = torch.arange(blocks * BLOCK, n, device=scores.device).expand(len(scores), -1)
    values, keep = torch.cat([candidates, scores[:, blocks * BLOCK :]], dim=1).topk(k, dim=1)
    return values, torch.cat([columns.flatten(start_dim=1), rest], dim=1).gather(1, keep)
