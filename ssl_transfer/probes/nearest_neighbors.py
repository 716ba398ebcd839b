"""Exact nearest neighbors by brute force, in tiles of queries and of the bank, so that memory grows with neither."""

from collections.abc import Iterable, Iterator, Sequence
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
# Numbers of the queries, and neighbors of them, that are held while the bank passes by once: it may be on a disk.
HELD = 2**24
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
    device: torch.device | None = None,
) -> Iterator[Neighbors]:
    """Walk over the queries in tiles and yield the ``k`` nearest bank rows of each.

    ``similarity`` is, by ``metric``, the cosine, or minus the squared Euclidean distance (of rows divided by a power of
    two, where the square itself would overflow or vanish). With ``exclude_self``, ``queries`` is ``bank`` and row i is
    never its own neighbor: by index, so a duplicate of it elsewhere still counts. Which of several equally similar rows
    takes the last place is not defined, as in scikit-learn. Rows may be of any length, and almost equal.

    Both are brought to ``device``, by default that of the queries, tile by tile. So either may be mapped from a file
    that is larger than memory (``torch.from_numpy(numpy.memmap(...))``): the bank is read once for every 2**24 divided
    by max(k, d) queries. Only a bank of half precision is copied whole, and for the Euclidean metric one whose largest
    number is above 2**32 or below 2**-32.

    Raises:
        ValueError: ``k`` is below 1 or above the number of rows to search.
    """
    check_k(k, len(bank) - exclude_self)
    searched = _Bank(floating(bank.detach()), floating(queries.detach()), metric, device or queries.device)
    # Fresh memory for every tile would cost as much as a tenth of the product.
    buffer = searched.center.new_empty(min(QUERY_ROWS, len(queries)) * min(searched.tile_rows, len(bank)))
    held = max(1, HELD // max(k, bank.shape[1]) // QUERY_ROWS) * QUERY_ROWS
    for start in range(0, len(queries), held):
        stop = min(start + held, len(queries))
        parts = [slice(first, min(first + QUERY_ROWS, stop)) for first in range(start, stop, QUERY_ROWS)]
        own = [torch.arange(rows.start, rows.stop, device=buffer.device) if exclude_self else None for rows in parts]
        given = [searched.given(queries[rows].detach()) for rows in parts]
        for rows, (similarity, index) in zip(parts, _nearest(given, searched, k, own, buffer), strict=True):
            yield Neighbors(rows, similarity, index)


def _nearest(
    given: Sequence[Float[Tensor, "_ d"]],
    bank: "_Bank",
    k: int,
    own: Sequence[Int64[Tensor, " _"] | None],
    buffer: Float[Tensor, " size"],
) -> list[tuple[Float[Tensor, "_ k"], Int64[Tensor, "_ k"]]]:
    """Similarities and rows of the bank for each part of the queries, by one walk over the bank or two."""
    asked = [unit_rows(rows) if bank.cosine else rows for rows in given]
    found, again = [], []
    for place, (score, index) in enumerate(_search(asked, bank.tiles(), k, own, buffer)):
        squares = asked[place].square().sum(dim=1, keepdim=True)
        similarity = score if bank.cosine else 2 * score - squares
        second = similarity[:, min(k, 2) - 1]
        close = (2 - 2 * second if bank.cosine else -second) <= CLOSE * squares[:, 0]
        found.append((similarity, index))
        if close.any():
            again.append((place, close))
    if again:
        asked = [bank.exact(given[place][close]) for place, close in again]
        own = [None if (rows := own[place]) is None else rows[close] for place, close in again]
        better = _search(asked, bank.exact_tiles(), k, own)
        for (place, close), exact, (score, index) in zip(again, asked, better, strict=True):
            distance = exact.square().sum(dim=1, keepdim=True) - 2 * score
            found[place][0][close] = (1 - distance / 2 if bank.cosine else -distance).to(buffer.dtype)
            found[place][1][close] = index
    return found


class _Tile(NamedTuple):
    """Some rows of the bank, from ``first`` on: the score of a query and a row is ``query . row * scale + offset``."""

    first: int
    rows: Float[Tensor, "t d"]
    scale: Float[Tensor, " t"] | None
    offset: Float[Tensor, " t"] | None


class _Bank:
    """What is searched, tile by tile on ``device``, and how rows are brought to where they can be compared."""

    def __init__(self, bank: Float[Tensor, "n d"], queries: Float[Tensor, "q d"], metric: Metric, device: torch.device):
        self.bank, self.cosine = bank, metric == "cosine"
        self.tile_rows = min(BANK_ROWS, max(1, BANK_NUMBERS // bank.shape[1]))
        self.center = torch.zeros(bank.shape[1], dtype=torch.promote_types(queries.dtype, bank.dtype), device=device)
        if self.cosine:
            self.middle = unit_rows(self._comparable(bank[:: 1 + len(bank) // 4096]).double()).mean(dim=0)
        else:
            self.scale = torch.maximum(scale_of(queries).to(self.center), scale_of(bank).to(self.center))
            # Distances do not change when everything moves, and float32 keeps more digits near the origin.
            self.center = rescaled(bank, self.scale.to(bank)).mean(dim=0, dtype=self.center.dtype).to(device)

    def given(self, queries: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Queries on the device, moved like the bank."""
        return queries.to(self.center) if self.cosine else self._comparable(queries)

    def exact(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Rows in float64; of cosines those of length one, less their mean."""
        return unit_rows(x.double()) - self.middle if self.cosine else x.double()

    def tiles(self) -> Iterator[_Tile]:
        """Scores are cosines of queries of length one, or (|query|^2 - |query - row|^2) / 2."""
        for first, rows in self._parts():
            if self.cosine:
                lengths = torch.linalg.vector_norm(rows, dim=1)
                yield _Tile(first, rows, 1 / lengths.where(lengths > 0, 1), None)
            else:
                yield _Tile(first, rows, None, rows.square().sum(dim=1) / -2)

    def exact_tiles(self) -> Iterator[_Tile]:
        """Scores are (|query|^2 - |query - row|^2) / 2 of exact rows."""
        for first, rows in self._parts():
            rows = self.exact(rows)
            yield _Tile(first, rows, None, rows.square().sum(dim=1) / -2)

    def _parts(self) -> Iterator[tuple[int, Float[Tensor, "t d"]]]:
        for number, rows in enumerate(self.bank.split(self.tile_rows)):
            yield number * self.tile_rows, self._comparable(rows)

    def _comparable(self, rows: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Rows on the device, of ordinary size; for distances, near the origin."""
        rows = rows.to(self.center)
        return rescaled(rows, scale_of(rows, dim=1)) if self.cosine else rescaled(rows, self.scale) - self.center


def _search(
    queries: Sequence[Float[Tensor, "_ d"]],
    tiles: Iterable[_Tile],
    k: int,
    own: Sequence[Int64[Tensor, " _"] | None],
    buffer: Float[Tensor, " size"] | None = None,
) -> list[tuple[Float[Tensor, "_ k"], Int64[Tensor, "_ k"]]]:
    """The largest scores of each query, and the rows of the bank that have them; none finds the row ``own``.

    Queries come in parts, as do the results, since the tiles are walked over once.
    """
    found = [
        (rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=rows.device))
        for rows in queries
    ]
    for tile in tiles:
        for place, (asked, (best, index)) in enumerate(zip(queries, found, strict=True)):
            values, near = _best_of(asked, tile, k, own[place], buffer)
            best, index = torch.cat([best, values], dim=1), torch.cat([index, near + tile.first], dim=1)
            if tile.first > 0:
                best, kept = best.topk(min(k, best.shape[1]), dim=1)
                index = index.gather(1, kept)
            found[place] = best, index
    return found


def _best_of(
    asked: Float[Tensor, "q d"],
    tile: _Tile,
    k: int,
    own: Int64[Tensor, " q"] | None,
    buffer: Float[Tensor, " size"] | None,
) -> tuple[Float[Tensor, "q m"], Int64[Tensor, "q m"]]:
    """The largest scores in a tile, and their places in it."""
    shape = len(asked), len(tile.rows)
    out = None if buffer is None else buffer[: shape[0] * shape[1]].view(shape)
    scores = torch.mm(asked, tile.rows.T, out=out)
    if tile.scale is not None:
        scores *= tile.scale
    if tile.offset is not None:
        scores += tile.offset
    if own is not None:
        inside = ((own >= tile.first) & (own < tile.first + len(tile.rows))).nonzero()[:, 0]
        scores[inside, own[inside] - tile.first] = -torch.inf
    return scores.topk(min(k, len(tile.rows)), dim=1)
