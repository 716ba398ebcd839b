"""A picture of some images and of the views that training makes of them."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from ssl_transfer.data import Batches
from ssl_transfer.files import write_atomically

_CELL, _GAP, _HEADER = 96, 4, 14  # pixels


def draw_views(batches: Batches, path: Path, *, images: int = 8, view_ids: int = 3) -> None:
    """Write a sheet with a row for each of the first ``images`` images of the first batch.

    The first column is the image itself; then come all views of the first ``view_ids`` view ids, which are the epochs,
    or, with fixed views, those that come round again.

    Raises:
        ValueError: the name of the file ends in no image format.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"{path} is no name for a picture: end it in .png, .jpg or .webp")
    index = batches.index(0)[:images]
    pixels = batches.images.pixels[index.to(batches.images.pixels.device)]
    columns, titles = [pixels.float() / 255], ["image"]
    word = "version" if batches.fixed_views else "epoch"
    for view_id in range(min(view_ids, batches.fixed_views or view_ids)):
        columns += batches.views_of(pixels, index, view_id)
        titles += [f"{word} {view_id} view {view}" for view in range(len(batches.views))]
    path.parent.mkdir(parents=True, exist_ok=True)
    files = batches.images.files
    names = [f"#{row}" if files is None else files[row].rpartition("/")[2] for row in index.tolist()]
    sheet = _sheet(columns, titles, names)
    write_atomically(path, sheet.save)


def _sheet(columns: Sequence[Tensor], titles: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """Columns of images in [0, 1] under their titles, each row under its name."""
    step = _CELL + _GAP
    sheet = Image.new("RGB", (len(columns) * step + _GAP, _HEADER + len(rows) * (step + _HEADER)), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (images, title) in enumerate(zip(columns, titles, strict=True)):
        left = _GAP + column * step
        pen.text((left, 1), title, fill="black")
        for row, cell in enumerate(_cells(images)):
            top = _HEADER + row * (step + _HEADER)
            if column == 0:
                pen.text((left, top), rows[row], fill="gray")
            sheet.paste(cell, (left, top + _HEADER))
    return sheet


def _cells(images: Tensor) -> list[Image.Image]:
    """Images as squares of equal size; small ones are enlarged pixel by pixel, so that nothing is smoothed over."""
    if images.shape[-1] > _CELL:
        scaled = F.interpolate(images, (_CELL, _CELL), mode="bilinear", antialias=True)
    else:
        scaled = F.interpolate(images, (_CELL, _CELL), mode="nearest-exact")
    colored = scaled.expand(-1, 3, -1, -1).clamp(0, 1)
    return [to_pil_image((image * 255).round().to(torch.uint8).cpu()) for image in colored]
