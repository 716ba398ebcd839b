"""The images behind embeddings, small, to be looked at."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ssl_transfer.data.sources.decode import decode
from ssl_transfer.embeddings.images import find_images
from ssl_transfer.embeddings.table import Embeddings
from ssl_transfer.report.rendering import data_url

_MISSING = 128  # the gray of an image that is not where it was


class Thumbnails:
    """Squares of ``size`` pixels of a table's images, from where they lay when they were embedded.

    ``missing`` counts those that were asked for and are not there any more; they are gray.

    Raises:
        ValueError: the table does not say where its images lie, as one of pixels in memory.
        FileNotFoundError: the data set is not there any more.
    """

    def __init__(self, table: Embeddings, size: int = 96):
        self.table, self.size, self.missing = table, size, 0
        self._place: dict[str, Any] = table.about.get("images", {})
        if not {"folder", "dataset"} & self._place.keys():
            raise ValueError("these embeddings do not say where their images lie, so there is nothing to show")
        self._images = None
        if "dataset" in self._place:
            name, where = self._place["dataset"], {key: self._place[key] for key in ("root", "split")}
            self._images, _ = find_images(name, image_size=size, **where)

    def __call__(self, row: int) -> UInt8[np.ndarray, "size size 3"]:
        """The image of a row of the table."""
        if self._images is not None:
            return _colored(self._images.pixels[int(self.table.rows[row]) :][:1][0].permute(1, 2, 0).numpy(), self.size)
        return self.of_file(Path(self._place["folder"]) / self.table.names[row])

    def of_file(self, path: Path) -> UInt8[np.ndarray, "size size 3"]:
        """Any image file."""
        try:
            return decode(path.read_bytes(), self.size).permute(1, 2, 0).numpy()
        except (OSError, ValueError):
            self.missing += 1
            return np.full((self.size, self.size, 3), _MISSING, dtype=np.uint8)


def as_data_url(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """An image as a page can hold it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return data_url(file.getvalue(), "jpeg")


def _colored(pixels: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Small images enlarged without smoothing, so that their pixels are seen."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    how = Image.Resampling.NEAREST if image.width < size else Image.Resampling.BILINEAR
    return np.asarray(image.resize((size, size), how))
