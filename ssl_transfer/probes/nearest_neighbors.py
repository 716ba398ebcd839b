"""Exact nearest neighbors by brute force, in tiles of queries and of the bank, so that memory grows with neither."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_k
from ssl_transfer.probes.scaling import floating, rescaled, scale_of, unit_rows

Metric = Literal["cosine", "euclidean"]
# Rows in a tile of queries and of the bank, of the latter fewer where they are wide. Its scores take 64 MiB of float32.
# It is wide rather than high, since the best of each tile have to be found and merged with those of the others.
QUERY_ROWS = 256
BANK_ROWS = 65_536
BANK_NUMBERS = BANK_ROWS * 1024
# A product in float32 is off by up to 3e-7 of a query's squared length. A query whose two nearest rows are both within
# this share of it is searched again in float64, with the mean taken off.
CLOSE = 1e-4


@dataclass(frozen=True)
class Neighbors:
    """The ``k`` most similar bank rows of the queries ``rows``, most similar first."""

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

    ``similarity`` is, by ``metric``, the cosine, or minus the squared Euclidean distance (of rows divided by a power of
    two, where the square itself would overflow or vanish). With ``exclude_self``, ``queries`` is ``bank`` and row i is
    never its own neighbor: by index, so a duplicate of it elsewhere still counts. Which of several equally similar rows
    takes the last place is not defined, as in scikit-learn. Rows may be of any length, and almost equal.

    Raises:
        ValueError: ``k`` is below 1 or above the number of rows to search.
    """
    check_k(k, len(bank) - exclude_self)
    cosine = metric == "cosine"
    scale, center = torch.ones(()), torch.zeros(())
    queries, bank = floating(queries.detach()), floating(bank.detach())
    if queries.dtype != bank.dtype:
        queries, bank = queries.double(), bank.double()
    if cosine:
        bank = rescaled(bank, scale_of(bank, dim=1))
        middle = unit_rows(bank[:: 1 + len(bank) // 4096].double()).mean(dim=0)
    else:
        scale = torch.maximum(scale_of(queries), scale_of(bank))
        # Distances do not change when everything moves, and float32 keeps more digits near the origin.
        center = rescaled(bank, scale).mean(dim=0)
        bank = rescaled(bank, scale) - center

    def exact(x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        return unit_rows(x.double()) - middle if cosine else x.double()

    tiles = list(_tiles(bank, cosine))
    # Fresh memory for every tile would cost as much as a tenth of the product.
    buffer = bank.new_empty(min(QUERY_ROWS, len(queries)) * len(tiles[0].rows))
    for start in range(0, len(queries), QUERY_ROWS):
        rows = slice(start, min(start + QUERY_ROWS, len(queries)))
        own = torch.arange(rows.start, rows.stop, device=bank.device) if exclude_self else None
        given = queries[rows] if cosine else rescaled(queries[rows], scale) - center
        asked = unit_rows(given) if cosine else given
        score, index = _search(asked, tiles, k, own, buffer)
        squares = asked.square().sum(dim=1, keepdim=True)
        similarity = score if cosine else 2 * score - squares
        second = similarity[:, min(k, 2) - 1]
        close = (2 - 2 * second if cosine else -second) <= CLOSE * squares[:, 0]
        if close.any():
            asked = exact(given[close])
            score, index[close] = _search(asked, _exact_tiles(bank, exact), k, None if own is None else own[close])
            distance = asked.square().sum(dim=1, keepdim=True) - 2 * score
            similarity[close] = (1 - distance / 2 if cosine else -distance).to(similarity)
        yield Neighbors(rows, similarity, index)


class _Tile(NamedTuple):
    """Some rows of the bank, from ``first`` on: the score of a query and a row is ``query . row * scale + offset``."""

    first: int
    rows: Float[Tensor, "t d"]
    scale: Float[Tensor, " t"] | None
    offset: Float[Tensor, " t"] | None


def _tiles(bank: Float[Tensor, "n d"], cosine: bool) -> Iterator[_Tile]:
    """The bank, not copied: scores are cosines of queries of length one, or (|query|^2 - |query - row|^2) / 2."""
    for first, rows in _parts(bank):
        if cosine:
            lengths = torch.linalg.vector_norm(rows, dim=1)
            yield _Tile(first, rows, 1 / lengths.where(lengths > 0, 1), None)
        else:
            yield _Tile(first, rows, None, rows.square().sum(dim=1) / -2)


def _exact_tiles(bank: Float[Tensor, "n d"], exact: Callable[[Tensor], Tensor]) -> Iterator[_Tile]:
    """Scores are (|query|^2 - |query - row|^2) / 2 in float64, for cosines of rows of length one less their mean."""
    for first, rows in _parts(bank):
        rows = exact(rows)
        yield _Tile(first, rows, None, rows.square().sum(dim=1) / -2)


def _parts(bank: Float[Tensor, "n d"]) -> Iterator[tuple[int, Float[Tensor, "t d"]]]:
    size = min(BANK_ROWS, max(1, BANK_NUMBERS // bank.shape[1]))
    for number, rows in enumerate(bank.split(size)):
        yield number * size, rows


def _search(
    queries: Float[Tensor, "q d"],
    tiles: Iterable[_Tile],
    k: int,
    own: Int64[Tensor, " q"] | None,
    buffer: Float[Tensor, " size"] | None = None,
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The largest scores of each query, and the rows of the bank that have them; none finds the row ``own``."""
    best = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for first, rows, scale, offset in tiles:
        shape = len(queries), len(rows)
        out = None if buffer is None else buffer[: shape[0] * shape[1]].view(shape)
        scores = torch.mm(queries, rows.T, out=out)
        if scale is not None:
            scores *= scale
        if offset is not None:
            scores += offset
        if own is not None:
            inside = ((own >= first) & (own < first + len(rows))).nonzero()[:, 0]
            scores[inside, own[inside] - first] = -torch.inf
        values, place = scores.topk(min(k, len(rows)), dim=1)
        best, index = torch.cat([best, values], dim=1), torch.cat([index, place + first], dim=1)
        if first > 0:
            best, kept = best.topk(min(k, best.shape[1]), dim=1)
            index = index.gather(1, kept)
    return best, index
