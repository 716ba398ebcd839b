"""Which rows are held out or labeled: pure functions of the seed, the same on every machine and version."""

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def rank_in_class(labels: Int64[Tensor, " n"], *seed: int) -> Int64[Tensor, " n"]:
    """Each row's place, from 0, in a random order of the rows of its class.

    The order comes from the raw numbers of a Philox generator, whose stream NumPy promises never to change
    (it makes no such promise for ``permutation``).
    """
    lots = np.random.Philox(np.random.SeedSequence(seed)).random_raw(len(labels))
    by_class = labels.cpu().numpy()
    order = np.lexsort((lots, by_class))
    sizes = np.unique(by_class, return_counts=True)[1]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return torch.from_numpy(place).to(labels.device)


def held_out_tenth(labels: Int64[Tensor, " n"], *, seed: int) -> Bool[Tensor, " n"]:
    """True for a tenth of each class, at least one row of it, but never for the only row of a class."""
    _, code, sizes = labels.unique(return_inverse=True, return_counts=True)
    tenth = (sizes // 10).clamp(min=1).minimum(sizes - 1)
    return rank_in_class(labels, seed) < tenth[code]


def shuffled(n: int, *seed: int) -> Int64[Tensor, " n"]:
    """The numbers 0 to n - 1 in a random order."""
    lots = np.random.Philox(np.random.SeedSequence(seed)).random_raw(n)
    return torch.from_numpy(np.argsort(lots, kind="stable"))
