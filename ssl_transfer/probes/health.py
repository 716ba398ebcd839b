"""Figures that show during training, without labels, whether an embedding collapses."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_transfer.probes.checks import check_features
from ssl_transfer.probes.scaling import rescaled, unit_rows

TILE_ROWS = 1024


@torch.no_grad()
def alignment(first: Float[Tensor, "n d"], second: Float[Tensor, "n_second d_second"]) -> float:
    """Mean squared distance between two views of the same image on the unit sphere; 0 is best.

    Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on the
    hypersphere", ICML 2020, with alpha = 2. Row i of ``first`` and ``second`` are embeddings of one image.

    Raises:
        ValueError: rows are not finite, or the shapes differ.
    """
    check_features(first, "first")
    check_features(second, "second")
    if first.shape != second.shape:
        raise ValueError(
            f"first has the shape {tuple(first.shape)} but second {tuple(second.shape)}; "
            "give two views of the same images by one model."
        )
    difference = unit_rows(first.double()) - unit_rows(second.double())
    return difference.square().sum(dim=1).mean().item()


@torch.no_grad()
def uniformity(x: Float[Tensor, "n d"], *, temperature: float = 2.0) -> float:
    """Log of the mean of ``exp(-temperature |x_i - x_j|^2)`` over pairs on the unit sphere (Wang and Isola, 2020).

    It is 0 where the embedding has collapsed to a point and, for the default temperature, about -4 + 8 / d where it is
    uniform in d dimensions.

    Raises:
        ValueError: rows are not finite, or there are fewer than two.
    """
    check_features(x, "x")
    if len(x) < 2:
        raise ValueError("uniformity is a mean over pairs of images; give at least two.")
    x = unit_rows(x.double())
    squares = x.any(dim=1).double()  # of lengths: one, or zero for a row of zeros, which no scale brings to one
    total = 0.0
    for start in range(0, len(x), TILE_ROWS):
        rows = x[start : start + TILE_ROWS]
        squared_distance = squares[start : start + TILE_ROWS, None] + squares - 2 * rows @ x.T
        total += torch.exp(-temperature * squared_distance).sum().item()
    # The pair of a row with itself counts exp(0) = 1.
    return math.log((total - len(x)) / (len(x) * (len(x) - 1)))


@torch.no_grad()
def effective_rank(x: Float[Tensor, "n d"]) -> float:
    """exp(entropy) of the singular values as shares of their sum (Roy and Vetterli, EUSIPCO 2007).

    As in RankMe (Garrido et al., ICML 2023) no mean is taken off: it is 1 where the embedding has collapsed to a line,
    and at most d.

    Raises:
        ValueError: rows are not finite, or all are zero.
    """
    check_features(x, "x")
    x = rescaled(x.double())
    # The smaller of the two Gram matrices has the same singular values.
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if singular.sum() == 0:
        raise ValueError("x is zero everywhere, so it has no rank to speak of; the model has collapsed.")
    share = singular / singular.sum()
    return math.exp(torch.special.entr(share).sum().item())
