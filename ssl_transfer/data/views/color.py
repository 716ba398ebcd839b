"""Color operations on images in [0, 1], laid out (image, channel, pixel), each image with its own strength.

Made of elementwise operations and one exact sum: what an image becomes never depends on its batch.
"""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ssl_transfer.data.device import to_device, to_device_together
from ssl_transfer.data.views.compiling import compile_once

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision round it
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
JITTER_ORDERS = tuple(itertools.permutations(range(4)))
_HUE_PLACES = torch.tensor([order.index(HUE) for order in JITTER_ORDERS])
_BLENDS = torch.tensor([[part for part in order if part != HUE] for order in JITTER_ORDERS])
_NOT_TURNED = 4
# Blends, and places where hues are turned, so that every order of three blends and a turn is a part of this sequence;
# and by the number of blends that come before the turn, which of the four blends are an image's own.
_TURN = None
_SEQUENCE = (0, _TURN, 1, 2, _TURN, 3)
_OWN_BLENDS = torch.tensor([[1, 2, 3], [0, 1, 2], [0, 1, 3], [0, 1, 2], [0, 1, 2]])


def gray(images: Float[Tensor, "n c p"]) -> Float[Tensor, "n p"]:
    """Luma of each pixel; a gray image is its own."""
    if images.shape[1] == 1:
        return images[:, 0].clone()
    red, green, blue = images.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def hue_place(hue: Float32[Tensor, " n"], order: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How many blends come before an image's hue is turned; a number of its own where it is not turned."""
    return _HUE_PLACES[order].masked_fill_(hue == 0, _NOT_TURNED)


def jitter_(
    images: Float[Tensor, "n c p"],
    brightness: Float32[Tensor, " n"],
    contrast: Float32[Tensor, " n"],
    saturation: Float32[Tensor, " n"],
    hue: Float32[Tensor, " n"],
    order: Int64[Tensor, " n"],
    *,
    compiled: bool = False,
) -> list[Tensor]:
    """Change brightness, contrast, saturation and hue, each image in its own order (an index into JITTER_ORDERS).

    The parameters are on the CPU, and the images sorted by :func:`hue_place`. Brightness, contrast and saturation are
    blends of one form, so images that turn their hue at the same place take all their steps together. On a GPU all
    images take all steps of one sequence together, some without being changed: a launch costs more than an image. A
    factor of 1 and a hue of 0 leave an image as it is; a gray image has neither saturation nor hue.

    Returns:
        The images in their order: ``images`` itself, or if compiled the pieces that took their steps together.
    """
    blend, turn_hue = (compile_once(_blended), compile_once(_hue_turned)) if compiled else (_blend_, _turn_hue_)
    if images.shape[1] == 1:
        saturation, hue = torch.ones_like(saturation), torch.zeros_like(hue)
    place = hue_place(hue, order)
    drawn, own = _BLENDS[order].T, _OWN_BLENDS[place].T
    operations = drawn.new_zeros(4, len(hue)).scatter_(0, own, drawn)
    factors = torch.stack((brightness, contrast, saturation)).gather(0, drawn)
    factors = factors.new_ones(4, len(hue)).scatter_(0, own, factors)
    shares = torch.stack(
        (factors, (1 - factors) * (operations == SATURATION), (1 - factors) * (operations == CONTRAST))
    )
    shares, turns = to_device_together(images.device, shares[..., None], hue[:, None])
    counts = place.bincount(minlength=_NOT_TURNED + 1).tolist()
    early, late = sum(counts[:2]), sum(counts[:4])
    pieces, start = [], 0
    for count in [len(images)] if images.is_cuda and not compiled else counts:
        stop = start + count
        some, turned = slice(start, stop), iter((range(early), range(early, late)))
        piece = images[some]
        for step in _SEQUENCE:
            if step is None:
                those = next(turned)
                first, last = max(start, those.start), min(stop, those.stop)
                if first == start and last == stop and count:
                    piece = turn_hue(piece, turns[some])
                elif first < last:
                    turn_hue(images[first:last], turns[first:last])
            elif factors[step, some].ne(1).any():
                piece = blend(piece, *shares[:, step, some])
        pieces.append(piece)
        start = stop
    return pieces if compiled else [images]


def put_(
    views: Float[Tensor, "all c p"],
    rows: Int64[Tensor, " n"],
    pieces: Sequence[Float[Tensor, "_ c p"]],
    grayscale: Bool[Tensor, " n"],
) -> None:
    """Put images, in the pieces that :func:`jitter_` leaves them in, into rows of ``views``: cut off at 1, some gray.

    Compiled, and so one pass instead of one for each of these steps.
    """
    counts = [len(piece) for piece in pieces]
    grayscale = to_device(grayscale[:, None, None], views.device)
    for piece, to, chosen in zip(pieces, rows.split(counts), grayscale.split(counts), strict=True):
        if len(piece):
            compile_once(_put_)(views, to, piece, chosen)


def solarize(images: Float[Tensor, "n c p"], threshold: float) -> Float[Tensor, "n c p"]:
    """Invert every pixel at or above the threshold."""
    return torch.where(images >= threshold, 1 - images, images)


def _blend_(
    images: Float[Tensor, "n c p"],
    own: Float32[Tensor, "n 1"],
    luma: Float32[Tensor, "n 1"],
    mean_luma: Float32[Tensor, "n 1"],
) -> Float[Tensor, "n c p"]:
    """A weighted sum of each image, its luma and the mean of its luma, cut off at 0 and 1.

    Weights of 1, 0 and 0 change no bit.
    """
    base = gray(images)
    mean = _mean(base)
    base.mul_(luma).add_(mean * mean_luma)
    return images.mul_(own[:, None]).add_(base[:, None]).clamp_(0, 1)


def _blended(images: Tensor, *shares: Tensor) -> Tensor:
    """Not in place, where compiled code would first write new images and then copy them over the old."""
    return _blend_(images.clone(), *shares)


def _turn_hue_(images: Float[Tensor, "n 3 p"], turns: Float32[Tensor, "n 1"]) -> Float[Tensor, "n 3 p"]:
    """Turn the hue of each image by a share of the color circle, at constant value and saturation.

    With value V, lowest channel L, chroma C = V - L and the hue h in sixths of the circle, -3 to 3 from red,

        |h| = (V - 2 L + green + blue - red) / C       its sign that of green - blue
        red = V - C clamp(|h| - 1),  green = L + C clamp(|h + 1| - 1),  blue = L + C clamp(|h - 1| - 1)

    where clamp is to [0, 1]: half the passes over memory that a case for each sixth takes. In place where that saves
    memory, which on a CPU is what costs time.
    """
    red, green, blue = images.unbind(1)
    if images.is_cuda:
        low, value = images.amin(dim=1), images.amax(dim=1)
    else:
        low, value = torch.minimum(green, blue), torch.maximum(green, blue)
        torch.minimum(low, red, out=low), torch.maximum(value, red, out=value)
    chroma = value - low
    hue = (green + blue).sub_(red).add_(value).sub_(low, alpha=2).copysign_(green - blue)
    hue.div_(chroma.clamp(min=1e-12)).mul_(1 / 6).add_(turns)  # a gray pixel has no hue, but no chroma either
    hue.sub_(hue.round()).mul_(6)
    torch.stack((hue, hue + 1, hue - 1), dim=1, out=images)
    images.abs_().sub_(1).clamp_(0, 1).mul_(chroma[:, None])
    images[:, 0].neg_().add_(value), images[:, 1:].add_(low[:, None])
    return images


def _hue_turned(images: Tensor, turns: Tensor) -> Tensor:
    return _turn_hue_(images.clone(), turns)


def _put_(views: Tensor, rows: Tensor, images: Tensor, grayscale: Tensor) -> None:
    views[rows] = torch.where(grayscale, gray(images)[:, None], images).clamp_(max=1)


def _mean(rows: Float[Tensor, "n p"]) -> Float32[Tensor, "n 1"]:
    """Mean of each row of values in [0, 1], summed as integers: exact, so in whichever order a kernel adds them."""
    total = rows.mul(2**24).round_().sum(dim=1, keepdim=True, dtype=torch.float64)
    return torch.div(total, 2**24 * rows.shape[1], out=torch.empty_like(total, dtype=torch.float32))
