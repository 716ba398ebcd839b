"""Cutout: a square of each image is hidden (DeVries and Taylor, 2017)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

FILL = 0.5  # mid-gray, near the mean that the authors fill with


def cutout_(images: Float[Tensor, "n c h w"], center: Int64[Tensor, "n 2"], side: int) -> None:
    """Hide a square of ``side`` pixels around ``center`` (row, column); what sticks out of the image is cut off."""
    height, width = images.shape[2:]
    first = (center - side // 2)[:, :, None]
    rows, columns = (torch.arange(length, device=images.device) for length in (height, width))
    in_rows = (rows >= first[:, 0]) & (rows < first[:, 0] + side)
    in_columns = (columns >= first[:, 1]) & (columns < first[:, 1] + side)
    images.masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], FILL)
