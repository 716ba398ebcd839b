"""A model of this program in mteb's benchmarks of image embeddings (MIEB): ``pip install 'ssl-transfer[mteb]'``.

::

    import mteb
    from ssl_transfer.mteb import ImageEncoder

    mteb.evaluate(ImageEncoder("exports/student"), mteb.get_tasks(tasks=["DTD", "OxfordPets"]))
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from ssl_transfer.data.sources.decode import square
from ssl_transfer.embeddings.embedder import load
from ssl_transfer.features.identity import weights_hash
from ssl_transfer.probes import extract_features

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
except ImportError as error:
    raise ImportError("ssl_transfer.mteb needs mteb: pip install 'ssl-transfer[mteb]'") from error


class ImageEncoder(AbsEncoder):
    """What mteb calls to embed images: those of a run, an exported folder, or whatever :func:`ssl_transfer.load` takes.

    Images are brought to the square that the network sees, as scores of this program are taken: the shorter side
    resized, the middle kept. ``layer`` is which of its outputs is given. It embeds images alone.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        layer: str = "features",
        **described: Any,
    ):
        self.model = load(model_name, device=device, **described)
        self.network = self.model.layer(layer)
        name = Path(model_name.partition(":")[2] or model_name).name
        about = {"name": f"ssl-transfer/{name}", "revision": revision or weights_hash(self.model)}
        self.mteb_model_meta = ModelMeta.create_empty({**about, "modalities": ["image"]})

    def get_image_embeddings(self, images: Any, **options: Any) -> Float32[Tensor, "n d"]:
        """Embeddings of all images of a loader, whose batches have lists of Pillow's images as ``image``."""
        size, device = self.model.backbone.input_size, self.model.device
        parts = []
        for batch in images:
            pixels = [square(np.array(image.convert("RGB")), size) for image in batch["image"]]
            parts.append(extract_features(self.network, torch.stack(pixels).to(device)).cpu())
        return torch.cat(parts)

    def get_text_embeddings(self, texts: Any, **options: Any) -> Tensor:
        """Refuse texts.

        Raises:
            ValueError: always.
        """
        raise ValueError("this model embeds images and no text: choose tasks of images alone")

    def encode(self, inputs: Any, **options: Any) -> Float32[Tensor, "n d"]:
        """Embeddings of a loader of images.

        Raises:
            ValueError: there is text in it.
        """
        if "text" in inputs.dataset.features:
            self.get_text_embeddings(inputs)
        return self.get_image_embeddings(inputs)
