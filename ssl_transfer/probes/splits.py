"""Which rows are held out, labeled or drawn: pure functions of the seed, the same on every machine and version."""

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt64
from torch import Tensor


def rank_in_class(labels: Int64[Tensor, " n"], *seed: int) -> Int64[Tensor, " n"]:
    """Each row's place, from 0, in a random order of the rows of its class; ``seed`` is one number or several."""
    by_class = labels.cpu().numpy()
    order = np.lexsort((_lots(len(labels), seed), by_class))
    sizes = np.unique(by_class, return_counts=True)[1]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return torch.from_numpy(place).to(labels.device)


def held_out_tenth(labels: Int64[Tensor, " n"], *, seed: int) -> Bool[Tensor, " n"]:
    """True for a tenth of each class, at least one row of it, but never for the only row of a class."""
    return held_out_share(labels, 10, seed=seed)


def held_out_share(labels: Int64[Tensor, " n"], one_in: int, *, seed: int) -> Bool[Tensor, " n"]:
    """True for one row in ``one_in`` of each class, at least one row of it, but never for the only row of a class."""
    _, code, sizes = labels.unique(return_inverse=True, return_counts=True)
    share = (sizes // one_in).clamp(min=1).minimum(sizes - 1)
    return rank_in_class(labels, seed) < share[code]


def shuffled(n: int, *seed: int) -> Int64[Tensor, " n"]:
    """The numbers 0 to n - 1 in a random order; ``seed`` is one number or several."""
    return torch.from_numpy(np.argsort(_lots(n, seed), kind="stable"))


def _lots(n: int, seed: tuple[int, ...]) -> UInt64[np.ndarray, " n"]:
    """A random number for each row, to sort by.

    They are the raw numbers of NumPy's Philox generator, whose stream NumPy promises never to change (it makes no such
    promise for ``permutation``). It is not the Philox of ``data.counter``, which has words of 32 bits where NumPy's has
    64: with another generator other rows would be held out and labeled, and every score so far would be of another
    split.
    """
    return np.random.Philox(np.random.SeedSequence(seed)).random_raw(n)
