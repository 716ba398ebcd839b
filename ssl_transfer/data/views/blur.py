"""Gaussian blur of images, each image with its own width."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from ssl_transfer.data.device import to_device


def blur_(images: Float[Tensor, "n c h w"], sigma: Float32[Tensor, " n"]) -> None:
    """Blur each image by its sigma in pixels (on the CPU; 0 leaves it alone), reflecting the image at its borders.

    The kernel reaches ``blur_radius`` pixels on both sides and sums to 1; both axes are blurred one after the other.
    """
    radius = blur_radius(sigma, min(images.shape[2:]))
    rows = radius.argsort(descending=True, stable=True)[: int(sigma.count_nonzero())]
    if not len(rows):
        return
    radius, sigma = radius[rows], sigma[rows]
    reach = [int((radius >= distance).sum()) for distance in range(int(radius[0]) + 1)]
    weights, rows = to_device(_kernel(sigma, radius), images.device), to_device(rows, images.device)
    blurred = images.index_select(0, rows)
    for _ in range(2):
        blurred = _blur_columns(blurred, weights, reach).transpose(2, 3).contiguous()
    images.index_copy_(0, rows, blurred)


def blur_radius(sigma: Float32[Tensor, " n"], side: int) -> Int64[Tensor, " n"]:
    """Three sigmas, which hold 99.7 % of the kernel, but no more than a reflection of the image can fill."""
    return (3 * sigma).ceil().long().clamp(max=side - 1)


def _kernel(sigma: Float32[Tensor, " n"], radius: Int64[Tensor, " n"]) -> Float32[Tensor, "distances n"]:
    """Half of each kernel, from its center outwards."""
    distance = torch.arange(int(radius[0]) + 1)[:, None]
    density = torch.exp(-0.5 * (distance / sigma.double()).square()) * (distance <= radius)
    total = density[0].clone()
    for side in density[1:]:  # one by one: the order of a reduction could change with the batch
        total += 2 * side
    return (density / total).float()


def _blur_columns(
    images: Float[Tensor, "n c h w"], weights: Float32[Tensor, "distances n"], reach: list[int]
) -> Float[Tensor, "n c h w"]:
    """Along the columns, where a shifted image is still contiguous; ``reach[d]`` images go as far as d pixels."""
    height, radius = images.shape[2], len(reach) - 1
    padded = F.pad(images, (0, 0, radius, radius), mode="reflect")
    blurred = images * weights[0][:, None, None, None]
    for distance in range(1, radius + 1):
        far = slice(reach[distance])
        above = padded[far, :, radius - distance : radius - distance + height]
        below = padded[far, :, radius + distance : radius + distance + height]
        blurred[far] += (above + below).mul_(weights[distance, far, None, None, None])
    return blurred
