"""Mixup and CutMix with timm's definitions, drawn as a pure function of (seed, step, view).

timm's own ``Mixup`` draws from numpy's global generator, so what it does depends on all that was drawn before. What
``Mixup(mode="batch")`` does is kept: one ratio for the whole batch, and a row's partner is the row as far from the
batch's end as this one is from its start.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.special import betaincinv
from torch import Tensor

from ssl_transfer.data import counter


@dataclass(frozen=True)
class Mix:
    """How a view of a batch is mixed: the share of an image's own label, and the pixels that its partner gives.

    ``box`` is (top, bottom, left, right) of what CutMix pastes; without one, all pixels are averaged (mixup).
    """

    own: float
    box: tuple[int, int, int, int] | None

    def __call__(
        self, images: Float[Tensor, "n c h w"], partners: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Each image mixed with its partner."""
        if self.box is None:
            return self.own * images + (1 - self.own) * partners
        top, bottom, left, right = self.box
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed


def draw_mix(*, seed: int, step: int, view: int, mixup: float, cutmix: float, height: int, width: int) -> Mix:
    """What happens to a view of the step's batch; ``mixup`` and ``cutmix`` are the a of Beta(a, a), 0 for never.

    Where both are on, each is taken half of the time, as by default in timm.

    Sources: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019,
    whose share is corrected, as in timm, to that of the pixels left.

    Raises:
        ValueError: ``mixup`` or ``cutmix`` is negative, or both are 0.
    """
    if not (mixup >= 0 and cutmix >= 0 and mixup + cutmix > 0):
        raise ValueError(f"mixup {mixup} and cutmix {cutmix} must not be negative, and not both 0.")
    place = torch.tensor([step])
    which, quantile, row, column = counter.uniform(seed, counter.MIX, 0, place, view, 4)[0].double().tolist()
    pastes = cutmix > 0 and (mixup == 0 or which < 0.5)
    alpha = cutmix if pastes else mixup
    own = float(betaincinv(alpha, alpha, quantile + 2.0**-25))  # the middle of the draw's interval, so never 0
    if not pastes:
        return Mix(own, None)
    top, bottom = _cut(height, own, row)
    left, right = _cut(width, own, column)
    return Mix(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def _cut(side: int, own: float, drawn: float) -> tuple[int, int]:
    """Where a box of area 1 - ``own`` begins and ends on one axis; its center is any pixel, so it may be cut off."""
    length, center = int(side * (1 - own) ** 0.5), int(drawn * side)
    return max(center - length // 2, 0), min(center + (length + 1) // 2, side)
