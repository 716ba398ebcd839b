"""Crop boxes and their resampling: every image of a batch has its own box, all are resized at once."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from ssl_transfer.data.device import to_device, to_device_together
from ssl_transfer.data.views.compiling import compile_once

CROP_TRIES = 10  # as torchvision's RandomResizedCrop


def resized_crop_box(
    tries: Float[Tensor, "n tries 2"],
    position: Float[Tensor, "n 2"],
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Int64[Tensor, "n 4"]:
    """Box (top, left, height, width) of a random share of the area and a random aspect ratio, log-uniform.

    The first try that fits the image is taken, else the largest central box of an allowed ratio: the rule and the
    rounding of torchvision's ``RandomResizedCrop``. In float64, so that every device rounds to the same box.
    """
    tries, position = tries.double(), position.double()
    area = height * width * (scale[0] + (scale[1] - scale[0]) * tries[..., 0])
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(log_low + (log_high - log_low) * tries[..., 1])
    widths, heights = torch.sqrt(area * aspect).round().long(), torch.sqrt(area / aspect).round().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.byte().argmax(dim=1, keepdim=True)
    box_width, box_height = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
    top = (position[:, 0] * (height - box_height + 1)).long()
    left = (position[:, 1] * (width - box_width + 1)).long()
    box = torch.stack((top, left, box_height, box_width), dim=1)
    return torch.where(fits.any(dim=1, keepdim=True), box, torch.tensor(_central_box(height, width, ratio)))


def padded_crop_box(
    position: Float[Tensor, "n 2"], height: int, width: int, size: int, padding: int
) -> Int64[Tensor, "n 4"]:
    """Box of the output's size anywhere in the image enlarged by ``padding`` on each side; it may stick out."""
    room = torch.tensor([height, width]) + 2 * padding - size + 1
    corner = (position.double() * room).long() - padding
    return torch.cat((corner, torch.full_like(corner, size)), dim=1)


def resample(
    images: UInt8[Tensor, "n c h w"],
    box: Int64[Tensor, "n 4"],
    flip: Bool[Tensor, " n"],
    size: int,
    *,
    reflect: bool = False,
    compiled: bool = False,
) -> Float[Tensor, "n c size size"]:
    """Resize each image's box to ``size``, mirrored where ``flip`` is set (both on the CPU), in [0, 1] up to rounding.

    Bilinear with antialiasing where a box shrinks: a triangle as wide as the larger of the two pixel grids' steps,
    one axis after the other, as Pillow and torchvision do. With ``reflect`` a box may stick out of its image, which is
    reflected there.
    """
    if max(images.shape[2:]) <= size and not reflect:  # no box shrinks, so every output pixel has two taps an axis
        return _enlarge((compile_once(_scaled) if compiled else _scaled)(images), box, flip, size)
    box, flip = to_device_together(images.device, box, flip)
    return _resize(images, box, flip, size)


def _scaled(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    return images / 255


def _enlarge(
    images: Float[Tensor, "n c h w"], box: Int64[Tensor, "n 4"], flip: Bool[Tensor, " n"], size: int
) -> Float[Tensor, "n c size size"]:
    """By torch's fused bilinear sampling, two to three times as fast as :func:`_resize`."""

    def places(start: Tensor, length: Tensor, out: Tensor, side: int) -> Float[Tensor, "n size"]:
        """Where on an axis the output's pixels lie, -1 to 1 over the image; beyond the box its border repeats."""
        place = (out + 0.5) * (length.float() / size)[:, None]
        inside = torch.minimum(place.clamp_(min=0.5), length[:, None] - 0.5)
        return (start[:, None] + inside) * (2 / side) - 1

    height, width = images.shape[2:]
    down = torch.arange(size, device=box.device)
    along = torch.where(flip[:, None], size - 1 - down, down)
    x, y = places(box[:, 1], box[:, 3], along, width), places(box[:, 0], box[:, 2], down, height)
    x, y = to_device_together(images.device, x, y)  # worked out on the CPU, since they are few
    grid = torch.stack((x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), dim=3)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _resize(
    images: UInt8[Tensor, "n c h w"], box: Int64[Tensor, "n 4"], flip: Bool[Tensor, " n"], size: int
) -> Float[Tensor, "n c size size"]:
    """Each axis as a sum over a few taps, each a selection of whole pixel rows times a weight.

    No matrix product, whose order of summation could change with the batch.
    """
    n, channels, height, width = images.shape
    (columns, rows), (column_weights, row_weights) = _taps(box, flip, size, height, width)
    plane = torch.arange(n * channels, device=images.device).view(n, channels)
    across = _weighted_rows(images.transpose(2, 3).reshape(-1, height), plane * width, columns, column_weights / 255)
    across = across.view(n, channels, size, height).transpose(2, 3).reshape(-1, size)
    return _weighted_rows(across, plane * height, rows, row_weights).view(n, channels, size, size)


def _taps(
    box: Int64[Tensor, "n 4"], flip: Bool[Tensor, " n"], size: int, height: int, width: int
) -> tuple[Int64[Tensor, "2 taps n size"], Float[Tensor, "2 taps n size"]]:
    """Which source columns, and which rows, make each output column and row, and their weights."""
    start = torch.stack((box[:, 1], box[:, 0]))[:, None, :, None]
    length = torch.stack((box[:, 3], box[:, 2]))[:, None, :, None]
    mirror = torch.stack((flip, torch.zeros_like(flip)))[:, None, :, None]
    out = torch.arange(size, device=box.device)
    out = torch.where(mirror, size - 1 - out, out)
    scale = length.float() / size
    support = scale.clamp(min=1)
    center = (out + 0.5) * scale
    low = (center - support + 0.5).long().clamp_(min=0)  # a tap's center lies half a pixel after its index
    # A box no larger than its image shrinks by at most side / size, and a triangle is two such steps wide.
    reach = math.ceil(2 * max(height / size, width / size, 1))
    taps = low + torch.arange(reach, device=box.device)[:, None, None]
    weights = (1 - (taps + 0.5 - center).abs_() / support).clamp_(min=0) * (taps < length)
    weights = weights / _ordered_sum(weights)
    last = to_device(torch.tensor((width - 1, height - 1)), box.device)[:, None, None, None]
    pixels = start + torch.minimum(taps, length - 1)
    return last - (last - pixels.abs_()).abs_(), weights  # reflected at both ends


def _weighted_rows(
    pixels: Tensor,
    first_row: Int[Tensor, "n c"],
    rows: Int[Tensor, "taps n size"],
    weights: Float[Tensor, "taps n size"],
) -> Float[Tensor, "n_c_size row"]:
    def tap(row: Int[Tensor, "n size"], weight: Float[Tensor, "n size"]) -> Float[Tensor, "n c size row"]:
        picked = pixels.index_select(0, (first_row[:, :, None] + row[:, None]).flatten())
        return picked.float().view(*first_row.shape, row.shape[1], -1).mul_(weight[:, None, :, None])

    total = tap(rows[0], weights[0])
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        total += tap(row, weight)
    return total.flatten(0, 2)


def _ordered_sum(weights: Float[Tensor, "2 taps n size"]) -> Float[Tensor, "2 1 n size"]:
    """The sum over the taps, one by one: the order of a reduction kernel could change with the batch."""
    total = weights[:, :1].clone()
    for tap in range(1, weights.shape[1]):
        total += weights[:, tap : tap + 1]
    return total


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
