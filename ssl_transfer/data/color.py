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

    The parameters are on the CPU. The first three operations are blends of one form, so all images take their first,
    second and third blend together; hue is turned before, between or after them, for the images where it is due.
    A gray image has neither saturation nor hue.
    """
    factors = torch.stack((brightness, contrast, saturation if len(planes) == 3 else torch.ones_like(saturation)))
    turns = hue if len(planes) == 3 else torch.zeros_like(hue)
    for place in range(4):
        rows = (turns.ne(0) & (_HUE_PLACES[order] == place)).nonzero()[:, 0]
        if len(rows):
            on_device = to_device(rows, planes.device)
            planes.index_copy_(1, on_device, _turn_hue(planes.index_select(1, on_device), turns[rows]))
        if place < 3 and factors.ne(1).any():
            operation = _BLENDS[order, place]
            _blend_(planes, operation, factors.gather(0, operation[None])[0])


def solarize(planes: Float[Tensor, "c n p"], threshold: float) -> Float[Tensor, "c n p"]:
    """Invert every pixel at or above the threshold."""
    return torch.where(planes >= threshold, 1 - planes, planes)


def _blend_(planes: Float[Tensor, "c n p"], operation: Int64[Tensor, " n"], factor: Float32[Tensor, " n"]) -> None:
    """``factor * image + (1 - factor) * base``, where the base is black (brightness), the mean luma or the luma.

    A factor of 1 changes no bit.
    """
    device = planes.device
    base = gray(planes)
    rows = to_device((operation == CONTRAST).nonzero()[:, 0], device)
    means = _mean(base.index_select(0, rows)) if len(rows) else None
    base.mul_(to_device((1 - factor) * (operation == SATURATION), device)[:, None])
    factor = to_device(factor, device)
    if means is not None:
        base.index_copy_(0, rows, (means * (1 - factor[rows]))[:, None].expand(-1, base.shape[1]))
    planes.mul_(factor[:, None]).add_(base).clamp_(0, 1)


def _turn_hue(planes: Float[Tensor, "3 n p"], turns: Float32[Tensor, " n"]) -> Float[Tensor, "3 n p"]:
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
    return planes


def _mean(rows: Float[Tensor, "n p"]) -> Float32[Tensor, " n"]:
    """Mean of each row of values in [0, 1], summed as integers: exact, so in whichever order a kernel adds them."""
    total = rows.mul(2**24).round_().sum(dim=1, dtype=torch.float64)
    return (total / (2**24 * rows.shape[1])).float()
