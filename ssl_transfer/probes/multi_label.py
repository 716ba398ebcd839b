"""The linear probe of images that are of several classes at once, and its metric, mean average precision."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssl_transfer.probes.checks import check_features, check_same_width
from ssl_transfer.probes.logistic import LogisticFit, fit_binary_path
from ssl_transfer.probes.rows import Rows
from ssl_transfer.probes.splits import held_out_share
from ssl_transfer.probes.transfer import (
    FIFTH,
    PENALTIES,
    Centered,
    TransferProbeResult,
    check_held_out,
    check_penalties,
)

RECALLS = 11  # of VOC2007: 0, 0.1, ..., 1


@torch.no_grad()
def multi_label_probe(
    train_x: Float[Tensor, "n_train d"],
    train_presence: Int64[Tensor, "n_train c"],
    test_x: Float[Tensor, "n_test d"],
    test_presence: Int64[Tensor, "n_test c"],
    *,
    held_out: Bool[Tensor, " n_train"] | None = None,
    eleven_points: bool = False,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> TransferProbeResult:
    """Mean average precision of one-vs-rest logistic regression on features as they are.

    ``presence`` is 1 where an image has a class, -1 where it has not, and 0 where that is not to be looked at, as for
    objects that VOC calls difficult: such a row is left out of its class's fit and of its average precision. One
    penalty is chosen for all classes, by :func:`mean_average_precision` on the ``held_out`` rows, and then as in
    :func:`ssl_transfer.probes.transfer.transfer_probe`; without ``held_out`` they are a fifth of all rows, as ``seed``
    draws it. ``penalties`` are as there too; ``eleven_points`` is that of the mean average precision.

    Raises:
        ValueError: the splits cannot be scored against each other, a penalty is not positive, all rows or none are held
            out, or a class is present in all rows or none of those that are fitted, or in none that are scored.
    """
    check_features(train_x, "train_x")
    check_features(test_x, "test_x")
    check_same_width(train_x, test_x)
    check_presence(train_x, train_presence, "train")
    check_presence(test_x, test_presence, "test")
    check_penalties(penalties)
    if held_out is None:
        held_out = held_out_share(torch.zeros(len(train_x), dtype=torch.long, device=train_x.device), FIFTH, seed=seed)
    check_held_out(held_out)
    grid = sorted(penalties)
    centered, fits = _fit(train_x[~held_out], train_presence[~held_out], grid)
    unseen, truth = centered(train_x[held_out]), train_presence[held_out]
    judged = []
    for logits in fits.logits(unseen):
        precision = mean_average_precision(logits.double(), truth, eleven_points=eleven_points)
        loss = (truth.abs() * F.softplus(-truth * logits.double())).sum() / truth.abs().sum()
        judged.append((precision, -loss.item()))
    best = max(range(len(grid)), key=lambda i: (judged[i], i))
    centered, final = _fit(train_x, train_presence, grid[best : best + 1])
    logits = next(final.logits(centered(test_x))).double()
    return TransferProbeResult(
        score=mean_average_precision(logits, test_presence, eleven_points=eleven_points),
        measure="11-point mAP" if eleven_points else "mAP",
        penalty=grid[best],
        held_out={penalty: value for penalty, (value, _) in zip(grid, judged, strict=True)},
        converged=bool(fits.converged.all() and final.converged.all()),
        n_train=len(train_x),
        n_held_out=int(held_out.sum()),
        n_test=len(test_x),
    )


def mean_average_precision(
    scores: Float[Tensor, "n c"], presence: Int64[Tensor, "n c"], *, eleven_points: bool = False
) -> float:
    """The mean over classes of the average precision of ranking the rows by the class's score.

    It is the sum over ranks of the precision times the increase of the recall; with ``eleven_points`` VOC2007's, the
    mean over the recalls 0, 0.1, ..., 1 of the highest precision at that recall or a higher one (Everingham et al.,
    IJCV 2010, equation 2). Rows of equal score share a rank. Rows in which ``presence`` is 0 are left out.

    Raises:
        ValueError: a class is present in no row.
    """
    return sum(
        _average_precision(score[present != 0], present[present != 0] > 0, eleven_points)
        for score, present in zip(scores.T, presence.T, strict=True)
    ) / len(scores.T)


def _average_precision(score: Float[Tensor, " n"], present: Bool[Tensor, " n"], eleven_points: bool) -> float:
    if not present.any():
        raise ValueError("a class is present in none of the rows that are scored; leave it out, or score on others.")
    order = score.argsort(descending=True, stable=True)
    found = present[order].double().cumsum(dim=0)
    last_of_rank = torch.cat([score[order].diff() != 0, torch.tensor([True], device=score.device)])
    precision = (found / torch.arange(1, len(found) + 1, device=score.device))[last_of_rank]
    found = found[last_of_rank]
    if not eleven_points:
        return (precision * torch.diff(found, prepend=found.new_zeros(1))).sum().item() / found[-1].item()
    best_from_here = precision.flip(0).cummax(dim=0).values.flip(0)
    # In whole numbers, so that three of ten is a recall of 0.3.
    tenths = torch.arange(RECALLS, dtype=torch.float64, device=score.device) * found[-1]
    return best_from_here[torch.searchsorted(found * (RECALLS - 1), tenths)].mean().item()


def check_presence(x: Tensor, presence: Tensor, name: str) -> None:
    """Refuse what is no table of 1, 0 and -1 with a row for each image, and classes that cannot be told from others.

    Raises:
        ValueError: what is wrong with ``name``_presence.
    """
    if presence.ndim != 2 or len(presence) != len(x):
        raise ValueError(
            f"{name}_presence has the shape {tuple(presence.shape)} for {len(x)} images; give a row for each image "
            "and a column for each class."
        )
    if presence.is_floating_point() or not torch.isin(presence, torch.tensor([-1, 0, 1], device=presence.device)).all():
        raise ValueError(f"{name}_presence has other values than 1 (present), -1 (absent) and 0 (not looked at).")


def _fit(x: Tensor, presence: Tensor, penalties: Sequence[float]) -> tuple[Centered, LogisticFit]:
    lacking = (~((presence > 0).any(dim=0) & (presence < 0).any(dim=0))).nonzero()[:, 0].tolist()
    if lacking:
        raise ValueError(
            f"class {lacking[0]} is in all or in none of the {len(x)} training rows that are fitted, so there is "
            "nothing to tell apart; give more images, or leave the class out."
        )
    centered = Centered.of(Rows(x))
    return centered, fit_binary_path(centered(x), presence, centered.strengths(penalties, len(x)))
