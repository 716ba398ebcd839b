"""Color operations on channel planes in [0, 1], each image with its own strength.

Planes are laid out (channel, image, pixel), so that a channel of the whole batch is one contiguous block. Made of
elementwise operations and one exact sum: what an image becomes never depends on its batch.
"""

import itertools

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from ssl_transfer.data.transfer import to_device

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision round it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
JITTER_ORDERS = tuple(itertools.permutations(range(4)))
_HUE_PLACES = torch.tensor([order.index(HUE) for order in JITTER_ORDERS])
_BLENDS = torch.tensor([[part for part in order if part != HUE] for order in JITTER_ORDERS])


def gray(planes: Float[Tensor, "c n p"]) -> Float[Tensor, "n p"]:
    """Luma of each pixel; a gray image is its own."""
    if len(planes) == 1:
        return planes[0].clone()
    red, green, blue = planes
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def jitter_(
    planes: Float[Tensor, "c n p"],
    brightness: Float32[Tensor, " n"],
    contrast: Float32[Tensor, " n"],
    saturation: Float32[Tensor, " n"],
    hue: Float32[Tensor, " n"],
    order: Int64[Tensor, " n"],
) -> None:
    """Change brightness, contrast, saturation and hue, each image in its own order (an index into JITTER_ORDERS).

    The parameters are on the CPU. Brightness, contrast and saturation are blends of one form, so all images take
    their first, second and third blend together. Images are sorted by how many blends come before their hue: then
    hue is turned once for all, and the blends before and after it run on slices. A factor of 1 and a hue of 0 leave
    an image as it is; a gray image has neither saturation nor hue.
    """
    if len(planes) == 1:
        saturation, hue = torch.ones_like(saturation), torch.zeros_like(hue)
    factors = torch.stack((brightness, contrast, saturation))
    changed = factors.ne(1).any(0) | hue.ne(0)
    hue_place = _HUE_PLACES[order].masked_fill(~changed, len(_BLENDS))
    rows = hue_place.argsort(stable=True)[: int(changed.count_nonzero())]
    if not len(rows):
        return
    operations = _BLENDS[order[rows]].T
    factors = factors[:, rows].gather(0, operations)
    firsts = [int((hue_place[rows] <= number).count_nonzero()) for number in range(3)]
    rows_there = to_device(rows, planes.device)
    picked = planes.index_select(1, rows_there)
    for operation, factor, first in zip(operations, factors, firsts, strict=True):
        _blend_(picked[:, first:], operation[first:], factor[first:])
    if hue.any():
        _turn_hue_(picked, hue[rows])
    for operation, factor, last in zip(operations, factors, firsts, strict=True):
        _blend_(picked[:, :last], operation[:last], factor[:last])
    planes.index_copy_(1, rows_there, picked)


def solarize(planes: Float[Tensor, "c n p"], threshold: float) -> Float[Tensor, "c n p"]:
    """Invert every pixel at or above the threshold."""
    return torch.where(planes >= threshold, 1 - planes, planes)


def _blend_(planes: Float[Tensor, "c n p"], operation: Int64[Tensor, " n"], factor: Float32[Tensor, " n"]) -> None:
    """``factor * image + (1 - factor) * base``, where the base is black (brightness), the mean luma or the luma.

    A factor of 1 changes no bit.
    """
    if not factor.ne(1).any():
        return
    device = planes.device
    base = gray(planes)
    rows = to_device((operation == CONTRAST).nonzero()[:, 0], device)
    means = _mean(base.index_select(0, rows)) if len(rows) else None
    base.mul_(to_device((operation == SATURATION).float(), device)[:, None])
    if means is not None:
        base.index_copy_(0, rows, means[:, None].expand(-1, base.shape[1]))
    torch.lerp(base, planes, to_device(factor, device)[:, None], out=planes).clamp_(0, 1)


def _turn_hue_(planes: Float[Tensor, "3 n p"], turns: Float32[Tensor, " n"]) -> None:
    """Turn the hue of each image by a share of the color circle, at constant value and saturation.

    With value V, chroma C and hue H in sixths of the circle, a channel of the color is
    V - C * clamp(2 - |(H + offset) mod 6 - 2|, 0, 1), its offset 5, 3, 1 for red, green, blue. Masks are floats since a
    product with one is several times faster than ``torch.where``.
    """
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = torch.minimum(torch.minimum(red, green), blue).neg_().add_(value)
    scale = chroma.clamp(min=1e-12).mul_(6).reciprocal_()  # a gray pixel has no hue, but zero differences and chroma
    if_red = (green - blue).mul_(scale)
    if_green = (blue - red).mul_(scale).add_(2 / 6)
    if_blue = (red - green).mul_(scale).add_(4 / 6)
    is_red, is_green = (torch.eq(plane, value, out=torch.empty_like(value)) for plane in (red, green))
    hue = if_blue.addcmul_(is_green, if_green.sub_(if_blue))
    hue.addcmul_(is_red, if_red.sub_(hue)).add_(to_device(turns, planes.device)[:, None])
    for plane, offset in zip(planes, (5, 3, 1), strict=True):
        angle = hue + (offset - 2) / 6
        distance = angle.sub_(torch.round(angle)).abs_()  # on the circle, in turns, so at most a half
        share = torch.rsub(distance, 2, alpha=6).clamp_(0, 1)
        torch.addcmul(value, chroma, share, value=-1, out=plane)


def _mean(rows: Float[Tensor, "n p"]) -> Float32[Tensor, " n"]:
    """Mean of each row of values in [0, 1], summed as integers: exact, so in whichever order a kernel adds them."""
    total = rows.mul(2**24).round_().sum(dim=1, dtype=torch.float64)
    return (total / (2**24 * rows.shape[1])).float()
