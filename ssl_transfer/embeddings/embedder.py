"""A model to use: loaded from wherever it lies, it embeds whatever a person has."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from rich.console import Console
from torch import nn

from ssl_transfer import runs
from ssl_transfer.data import Images
from ssl_transfer.data.sources.inventory import printable
from ssl_transfer.data.sources.streaming import StreamedPixels
from ssl_transfer.embeddings.computing import embed_rows
from ssl_transfer.embeddings.images import Wanted, find_images
from ssl_transfer.embeddings.table import Embeddings
from ssl_transfer.errors import user_mistakes
from ssl_transfer.features.extraction import features_key, layer_of
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.progress import Stage
from ssl_transfer.teachers.loading import open_teacher
from ssl_transfer.teachers.section import Teacher, named_teacher


class Embedder(EmbeddingModel):
    """A trained model, in eval mode: a module of images in [0, 1], with :meth:`embed` for files and data sets.

    ``source`` says what it was loaded from, ``report`` what became of the weights of another tool's file.
    """

    def __init__(self, model: EmbeddingModel, *, source: dict[str, Any], report: list[str]):
        super().__init__(model.backbone, model.head)
        self.source, self.report = source, report
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.backbone.mean.device

    def embed(
        self,
        images: Wanted,
        *,
        layer: str = "features",
        image_size: int | None = None,
        root: str | Path = "data",
        split: str = "test",
        labels: str = "auto",
        progress: bool = True,
    ) -> Embeddings:
        """The embeddings of a folder of images, of files, of a data set by its name, or of pixels in memory.

        ``layer`` is ``features``, ``output`` (what the model gives), its head's ``projection``, ``embedding`` or
        ``logits``, or a layer of the timm network. Files are brought to ``image_size``, by default as the model's run
        scored them, or else to what its network sees. A data set's ``split`` lies under ``root``. ``labels`` are those
        of :func:`ssl_transfer.data.load_images`. Images that cannot be decoded are left out and listed in ``about``.

        Raises:
            FileNotFoundError: there are no such images.
            ValueError: they are no images, or none that the model can take; or it has no such layer.
            UserError: its run's recipe, which says to what size images are brought, cannot be read.
        """
        found, how = self.find_images(images, image_size=image_size, root=root, split=split, labels=labels)
        console = Console(markup=False, emoji=False) if progress else None
        with Stage(f"embedding {found.name}", console, len(found), unit="images", passing=True) as stage:
            part = embed_rows(self.layer(layer), found, slice(0, len(found)), advance=stage.advance)
        if not len(part.rows):
            raise ValueError(f"no image of {found.name} can be decoded: {listed(part.broken)}")
        about = {**self.describe(layer), "images": how, "left_out": part.broken}
        return Embeddings(part.values.numpy(), **columns_of(found, part.rows.numpy()), about=about)

    def find_images(self, images: Wanted, *, image_size: int | None, **where: Any) -> tuple[Images, dict[str, Any]]:
        """The images as the model sees them; where they lie, and to what size they are brought, in words.

        Raises:
            ValueError, FileNotFoundError, UserError: as :meth:`embed` does.
        """
        size, crop = (image_size, None) if image_size is not None else self._scored_size()
        found, place = find_images(images, image_size=size, **where)
        if not isinstance(found.pixels, StreamedPixels):
            return found, {**place, "name": found.name}
        return found if crop is None else found.middle(crop), {
            **place,
            "name": found.name,
            "image_size": size,
            "crop_size": crop,
        }

    def layer(self, layer: str) -> nn.Module:
        """The network that gives a layer, as scores are taken of it.

        Raises:
            ValueError: there is no such layer.
        """
        return layer_of(self, layer).to(memory_format=torch.channels_last).eval()

    def describe(self, layer: str) -> dict[str, Any]:
        """What decides the embeddings of an image, in words."""
        return {"model": self.source, **features_key(self, layer)}

    def _scored_size(self) -> tuple[int, int | None]:
        """The side to which files are brought, and that of their middle that is seen."""
        folder = Path(self.source.get("checkpoint", ""))
        if (folder / "recipe.yaml").is_file():
            data = runs.read_recipe(folder).data
            if data.image_size is not None:
                return data.image_size, data.crop_size
        return self.backbone.input_size, None


def load(model: str | Path, *, device: str | torch.device | None = None, **described: Any) -> Embedder:
    """A trained model: of a run or exported folder, ``zoo:NAME``, ``timm:NAME``, ``torchvision:NAME`` or a checkpoint.

    It is in eval mode, on ``device``, by default the GPU if there is one. ``described`` are keys of ``task.teacher``
    that go with the source: ``backbone``, ``format``, ``prefix`` and ``stem`` of a checkpoint, and ``mean``, ``std``
    and ``image_size`` of what its network sees.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it is no model, it is damaged, or what is described does not suit it.
    """
    return _opened(named_teacher(str(model), **described), device)


def load_again(about: dict[str, Any]) -> Embedder:
    """The model that made embeddings, of which they say ``about`` what it was.

    Raises:
        UserError: it is not there any more, or has other weights now.
    """
    with user_mistakes():
        if "model" not in about:
            raise ValueError("these embeddings do not say which model made them")
        embedder = _opened(Teacher(**about["model"]), None)
        if embedder.describe(about["layer"])["weights"] != about["weights"]:
            raise ValueError(f"the model of these embeddings has other weights now ({about['model']}): embed again")
    return embedder


def _opened(section: Teacher, device: str | torch.device | None) -> Embedder:
    opened, report = open_teacher(section, None)
    source = section.model_dump(mode="json", exclude_none=True, exclude={"output"})
    for key in ("checkpoint", "file"):
        if key in source:
            source[key] = os.path.abspath(source[key])  # what is written down shall hold in any folder
    embedder = Embedder(opened, source=source, report=report)
    return embedder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def columns_of(images: Images, rows: Int64[np.ndarray, " m"]) -> dict[str, Any]:
    """What a table of embeddings says of the images at ``rows`` beside their embeddings."""
    files = None if images.files is None else np.array([images.files[row] for row in rows.tolist()])
    labels = None if images.labels is None else images.labels.cpu().numpy()[rows]
    return {"rows": rows, "files": files, "labels": labels, "class_names": images.class_names}


def listed(broken: dict[str, str]) -> str:
    """The first files that cannot be decoded, with the reasons."""
    first = list(broken.items())[:5]
    return ", ".join(f"{printable(name)} ({why})" for name, why in first) + (", ..." if len(broken) > 5 else "")
