"""Tables of features that may be larger than memory: they are looked at a part at a time, and changed as they are."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

# Numbers of a table that is looked at as a whole, 4 GiB of float32, and of a part of a larger one. The order of a sum
# decides its last bits, so tables that fit into memory are summed as they always were.
WHOLE = 2**30
PART = 2**26

Change = Callable[[Tensor], Tensor]


class Rows:
    """Rows of a ``table``, those that are ``chosen`` or all, each ``changed`` on its own.

    Those of a table of at most :data:`WHOLE` numbers are made at once and held. Those of a larger one, which may be
    mapped from a file, are made whenever they are asked for, ``at_once`` of them at a time. ``dtype`` and ``device``
    are those of the changed rows.
    """

    def __init__(
        self,
        table: Shaped[Tensor, "n d"],
        chosen: Int64[Tensor, " m"] | None = None,
        change: Change = lambda rows: rows,
    ):
        self._table, self._chosen, self._change = table, chosen, change
        self.at_once = max(1, PART // max(1, table.shape[1]))
        if table.numel() <= WHOLE:
            self._table, self._chosen, self._change = self[:], None, lambda rows: rows
            self.at_once = max(1, len(self._table))
        first = self[:1]
        self.dtype, self.device = first.dtype, first.device

    def __getitem__(self, rows: slice | Int64[Tensor, " m"]) -> Shaped[Tensor, "m d"]:
        return self._change(self._table[rows if self._chosen is None else self._chosen[rows]])

    def __len__(self) -> int:
        return len(self._table if self._chosen is None else self._chosen)

    @property
    def shape(self) -> tuple[int, int]:
        """How many there are, and their width."""
        return len(self), self._table.shape[1]

    def changed(self, change: Change) -> "Rows":
        """The same rows, each changed once more."""
        before = self._change
        return Rows(self._table, self._chosen, lambda rows: change(before(rows)))

    def slices(self) -> list[slice]:
        """Consecutive rows that are looked at together: all of them, or parts."""
        n, size = len(self), self.at_once
        return [slice(first, min(first + size, n)) for first in range(0, n, size)]

    def parts(self) -> Iterator[Shaped[Tensor, "m d"]]:
        """The rows in their order, a part at a time."""
        return (self[rows] for rows in self.slices())

    def extremes(self) -> Shaped[Tensor, "m d"]:
        """Rows of the smallest and the largest numbers of each column: their scale is that of all rows."""
        return torch.cat([torch.stack(part.aminmax(dim=0)) for part in self.parts()])

    def shares(self) -> Float[Tensor, " m"]:
        """How much of all rows each part is."""
        return torch.tensor([(rows.stop - rows.start) / len(self) for rows in self.slices()], dtype=torch.float64)

    def average(self, of: Change) -> Tensor:
        """The mean over all rows of what ``of`` gives as the mean over a part of them."""
        means = torch.stack([of(part) for part in self.parts()])
        return (self.shares().to(means).view(-1, *[1] * (means.ndim - 1)) * means).sum(dim=0)
