"""Exact nearest neighbors at the speed of bf16: a rough search lists more than enough, float32 decides among them.

A CPU with AMX multiplies bf16 about six times as fast as float32. How far off that is has a bound: a query whose k-th
neighbor is nearer than anything left off its list can be is done. The others are searched in float32.
"""

import warnings

import torch
from jaxtyping import BFloat16, Float, Int64
from torch import Tensor

from ssl_transfer.probes.search import search

# Rounding to bf16, which has 8 significant binary digits, changes a number by at most this share.
ROUNDING = 2.0**-8
# More than a sum of some thousand products is off in float32, as a share of the factors' lengths: of bf16 numbers,
# which a processor may add up one by one, and of float32 numbers.
SUMMING, EXACT = 2.0**-14, 2.0**-20
# So many numbers of bf16 hold the digits of one of float32.
PARTS = 3
# Columns in whole tiles of the processor, which halves the time of the product.
ALIGNED = 32
# Rows on a list beyond the k that are wanted, if not k more. With fewer, more queries would be searched twice.
MORE = 64
# Fewer queries than this do not make up for the copy of the bank, nor does a copy of more bytes for its memory.
FEWEST_QUERIES = 2048
LARGEST_COPY = 2**30
_ROWS_AT_ONCE = 512  # stay in a processor's cache


def pays(queries: int, bank: Float[Tensor, "n d"], k: int) -> bool:
    """Whether bf16 is much faster here, a copy of the bank is worth it, and lists are much shorter than the bank."""
    fast = bank.device.type == "cpu" and bank.dtype == torch.float32 and torch.cpu._is_amx_tile_supported()
    worth = queries >= FEWEST_QUERIES and 2 * bank.numel() <= LARGEST_COPY
    return fast and worth and len(bank) >= 8 * _list_length(k)


class Shortlist:
    """:func:`ssl_transfer.probes.search.search` for the ``k`` largest scores among the rows of one bank.

    What is kept of the bank, in bf16, are its rows less their mean m, since small numbers lose less:

        query . row * scale + offset - top = (query - m) . (row * scale - m)
                                           + (m . (row * scale - m) + offset) + (m . query - top)

    where ``top`` is the highest score that the query could have. The last two terms are further columns of the same
    product, three each, for bf16 to lose nothing of them.
    """

    def __init__(
        self,
        bank: Float[Tensor, "n d"],
        k: int,
        *,
        scale: Float[Tensor, " n"] | None,
        offset: Float[Tensor, " n"] | None,
        buffer: Float[Tensor, " size"],
    ):
        self.bank, self.k, self.scale, self.offset, self.buffer = bank, k, scale, offset, buffer
        self.pays = True
        n, d = bank.shape
        self.mean = (bank.new_ones(n) if scale is None else scale) @ bank / n
        self.rows = torch.zeros(n, -(-(d + 2 * PARTS) // ALIGNED) * ALIGNED, dtype=torch.bfloat16)
        self.rows[:, d + PARTS : d + 2 * PARTS] = 1
        self.length = self.lost = self.added = 0.0  # the largest of all rows
        for start in range(0, n, _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            centered = (bank[part] if scale is None else bank[part] * scale[part, None]) - self.mean
            added = centered @ self.mean if offset is None else centered @ self.mean + offset[part]
            rounded = self.rows[part, :d].copy_(centered)
            self.rows[part, d : d + PARTS] = _in_parts(added)
            self.length = max(self.length, centered.norm(dim=1).max().item())
            self.lost = max(self.lost, centered.sub_(rounded).norm(dim=1).max().item())
            self.added = max(self.added, added.abs().max().item())

    @torch.no_grad()
    def __call__(
        self, queries: Float[Tensor, "q d"], own: Int64[Tensor, " q"] | None = None
    ) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
        """The largest scores of each query and the rows that have them; none finds its ``own``."""
        if not self.pays:
            return self._search(queries, own)
        listed, bound = self.candidates(queries, own)
        score, place = self._scores(queries, listed).topk(self.k, dim=1)
        index = listed.gather(1, place)
        unsure = (score[:, -1] < bound).nonzero()[:, 0]
        if len(unsure):
            score[unsure], index[unsure] = self._search(queries[unsure], None if own is None else own[unsure])
        self.pays = 2 * len(unsure) < len(queries)
        return score, index

    def candidates(
        self, queries: Float[Tensor, "q d"], own: Int64[Tensor, " q"] | None = None
    ) -> tuple[Int64[Tensor, "q m"], Float[Tensor, " q"]]:
        """More than ``k`` rows for each query, and a bound that the score of no other row exceeds."""
        d = queries.shape[1]
        # A cosine is 1 at most; query . row - row . row / 2, for distances, is largest where the row is the query.
        top = queries.new_ones(len(queries)) if self.offset is None else queries.square().sum(dim=1) / 2
        centered, added = queries - self.mean, queries @ self.mean - top
        columns = self.rows.new_ones(len(queries), self.rows.shape[1])
        rounded = columns[:, :d].copy_(centered)
        columns[:, d + PARTS : d + 2 * PARTS] = _in_parts(added)
        rough, listed = search(
            columns, self.rows, _list_length(self.k), own=own, buffer=self.buffer.view(torch.bfloat16)
        )
        last = rough[:, -1].float()
        length, lost = centered.norm(dim=1), (centered - rounded).norm(dim=1)
        # |a . b - a' . b'| <= |a - a'| |b| + |a'| |b - b'|, by Cauchy and Schwarz.
        error = lost * self.length + (length + lost) * self.lost
        error += SUMMING * (length * self.length + added.abs() + self.added) + ROUNDING * last.abs()
        error += EXACT * queries.norm(dim=1) * (self.length + self.mean.norm())
        return listed, last + error + top

    def _scores(self, queries: Float[Tensor, "q d"], listed: Int64[Tensor, "q m"]) -> Float[Tensor, "q m"]:
        """The scores of the rows listed for each query, without a copy of these."""
        q, m = listed.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that such tensors are new, and go unchecked
            places = torch.sparse_csr_tensor(
                torch.arange(0, q * m + 1, m),
                listed.flatten(),
                queries.new_zeros(q * m),
                (q, len(self.bank)),
                check_invariants=False,
            )
        score = torch.sparse.sampled_addmm(places, queries, self.bank.T, beta=0.0).values().view(q, m)
        if self.scale is not None:
            score *= self.scale[listed]
        return score if self.offset is None else score + self.offset[listed]

    def _search(
        self, queries: Float[Tensor, "q d"], own: Int64[Tensor, " q"] | None
    ) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
        return search(queries, self.bank, self.k, scale=self.scale, offset=self.offset, own=own, buffer=self.buffer)


def _list_length(k: int) -> int:
    return k + max(k, MORE)


def _in_parts(numbers: Float[Tensor, " n"]) -> BFloat16[Tensor, "n 3"]:
    """Three numbers of bf16 that add up to each."""
    first = numbers.bfloat16()
    second = (numbers - first).bfloat16()
    return torch.stack((first, second, (numbers - first - second).bfloat16()), dim=1)
