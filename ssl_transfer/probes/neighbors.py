"""Exact nearest neighbours by brute force, tiled on both sides so that memory does not grow with the bank."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_k

Metric = Literal["cosine", "euclidean"]

# Similarities held at once, at most 64 MiB of float32. A tile is wide rather than high: its best have to be found
# and merged once per tile and query.
QUERY_ROWS = 256
BANK_ROWS = 65_536
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
    check_k(k, len(bank) - exclude_self)
    queries, bank = (x if x.dtype == torch.float64 else x.float() for x in (queries, bank))
    if metric == "cosine":
        # The bank is not copied to be normalised: its lengths divide the products afterwards.
        center, scale, offset = None, 1 / torch.linalg.vector_norm(bank, dim=1).clamp(min=1e-12), None
    else:
        # Distances do not change when everything moves, and float32 keeps more digits near the origin.
        center = bank.mean(dim=0)
        bank = bank - center
        scale, offset = None, bank.square().sum(dim=1) / -2
    buffer = bank.new_empty(min(QUERY_ROWS, len(queries)) * min(BANK_ROWS, len(bank)))
    for start in range(0, len(queries), QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, len(queries)))
        tile = queries[rows] - center if center is not None else F.normalize(queries[rows], dim=1)
        score, index = _search(tile, bank, k, scale, offset, start if exclude_self else None, buffer)
        similarity = 2 * score - tile.square().sum(dim=1, keepdim=True) if center is not None else score
        yield Neighbors(rows, similarity, index)


@torch.no_grad()
def _search(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    k: int,
    scale: Float[Tensor, " n"] | None,
    offset: Float[Tensor, " n"] | None,
    first_row: int | None,
    buffer: Float[Tensor, " size"],
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k largest of ``queries @ bank.T * scale + offset``: the best of each tile of the bank, merged on the way.

    Queries that are themselves rows of the bank begin at its row ``first_row`` and do not find themselves.
    """
    best = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BANK_ROWS):
        columns = slice(start, min(start + BANK_ROWS, len(bank)))
        size = columns.stop - columns.start
        # Fresh memory for every tile would cost as much as a tenth of the product.
        scores = torch.mm(queries, bank[columns].T, out=buffer[: len(queries) * size].view(len(queries), size))
        if scale is not None:
            scores *= scale[columns]
        if offset is not None:
            scores += offset[columns]
        if first_row is not None:
            _exclude_diagonal(scores, first_row - start)
        values, position = top_k(scores, min(k, size))
        best = torch.cat([best, values], dim=1)
        index = torch.cat([index, position + start], dim=1)
        if start > 0:
            best, keep = best.topk(min(k, best.shape[1]), dim=1)
            index = index.gather(1, keep)
    return best, index


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
