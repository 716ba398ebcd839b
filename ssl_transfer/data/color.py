"""Color operations on channel planes in [0, 1], each image with its own strength.

Planes are laid out (channel, image, pixel), so that a channel of the whole batch is one contiguous block. Made of
elementwise operations only: what an image becomes never depends on its batch.
"""

import itertools

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

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
            on_device = rows.to(planes.device)
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
    of_mean = ((1 - factor) * (operation == CONTRAST)).to(device)
    of_luma = ((1 - factor) * (operation == SATURATION)).to(device)
    luma = gray(planes)
    base = luma.mul(of_luma[:, None]).add_((_mean(luma) * of_mean)[:, None])
    planes.mul_(factor.to(device)[:, None]).add_(base).clamp_(0, 1)


def _turn_hue(planes: Float[Tensor, "3 n p"], turns: Float32[Tensor, " n"]) -> Float[Tensor, "3 n p"]:
    """Turn the hue of each image by a share of the color circle, at constant value and saturation.

    With value V, chroma C and hue H in sixths of the circle, a channel of the color is
    V - C * clamp(2 - |(H + offset) mod 6 - 2|, 0, 1), its offset 5, 3, 1 for red, green, blue. Masks are floats since a
    comparison in place runs vectorized and ``torch.where`` does not.
    """
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    scale = chroma.clamp(min=1e-12).reciprocal_()  # a gray pixel has no hue: its differences and its chroma are zero
    if_red = (green - blue).mul_(scale)
    if_green = (blue - red).mul_(scale).add_(2)
    if_blue = (red - green).mul_(scale).add_(4)
    is_red, is_green = red.clone().eq_(value), green.clone().eq_(value)
    hue = if_blue.add_(if_green.sub_(if_blue).mul_(is_green))
    hue.add_(if_red.sub_(hue).mul_(is_red)).div_(6).add_(turns.to(planes.device)[:, None])
    for plane, offset in zip(planes, (5, 3, 1), strict=True):
        angle = hue + (offset - 2) / 6
        distance = angle.sub_(torch.round(angle)).abs_()  # on the circle, in turns, so at most a half
        torch.sub(value, distance.mul_(-6).add_(2).clamp_(0, 1).mul_(chroma), out=plane)
    return planes


def _mean(rows: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Mean of each row by adding halves, an order of summation that depends on the row's length alone."""
    length = count = rows.shape[1]
    while length > 1:
        half = length // 2
        folded = rows[:, :half] + rows[:, half : 2 * half]
        if length % 2:
            folded[:, :1] += rows[:, length - 1 : length]
        rows, length = folded, half
    return rows[:, 0] / count
