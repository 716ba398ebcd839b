"""The largest scores of some queries among the rows of a bank, in tiles on both sides."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# In a tile, which is wide rather than high: its best have to be found and merged once per tile and query.
BANK_ROWS = 65_536
# A row of scores is cut into blocks of this many; only the blocks with the largest maxima are looked into.
BLOCK = 16


@torch.no_grad()
def search(
    queries: Float[Tensor, "q d"],
    bank: Float[Tensor, "n d"],
    k: int,
    *,
    scale: Float[Tensor, " n"] | None = None,
    offset: Float[Tensor, " n"] | None = None,
    own: Int64[Tensor, " q"] | None = None,
    buffer: Float[Tensor, " size"],
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """The k largest of ``queries @ bank.T * scale + offset``: the best of each tile of the bank, merged on the way.

    Queries that are rows of the bank do not find these, their ``own``. ``buffer`` is what :func:`new_buffer` makes for
    as many queries or more.
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
        if own is not None:
            _exclude(scores, own - start)
        values, position = top_k(scores, min(k, size))
        best = torch.cat([best, values], dim=1)
        index = torch.cat([index, position + start], dim=1)
        if start > 0:
            best, keep = best.topk(min(k, best.shape[1]), dim=1)
            index = index.gather(1, keep)
    return best, index


def new_buffer(queries: int, bank: Float[Tensor, "n d"]) -> Float[Tensor, " size"]:
    """Room for the scores of so many queries with a tile of the bank: 64 MiB of float32 for 256 of them."""
    return bank.new_empty(queries * min(BANK_ROWS, len(bank)))


def _exclude(scores: Float[Tensor, "q n"], own: Int64[Tensor, " q"]) -> None:
    """Make the score of each query with its own row the smallest of all; some rows may lie in other tiles."""
    query = torch.arange(len(scores), device=scores.device)
    inside = (own >= 0) & (own < scores.shape[1])
    scores[query[inside], own[inside]] = -torch.inf


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
    values, place = torch.cat([candidates, scores[:, blocks * BLOCK :]], dim=1).topk(k, dim=1)
    of_block = chosen.gather(1, place % k) + blocks * (place // k)
    return values, torch.where(place < BLOCK * k, of_block, place + BLOCK * (blocks - k))
