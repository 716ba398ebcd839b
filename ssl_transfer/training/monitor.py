"""Figures that tell during training whether a model learns, and whether its embedding collapses.

They look at images of the training split, at those held out of it where some are. Their labels serve to count, nobody
learns from them, and the test split is kept for the end. They change nothing: a copy of the model is looked at, and no
random number is drawn.
"""

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_transfer.data import Augment, Images
from ssl_transfer.distributed import gather_shards, shard
from ssl_transfer.features.extraction import compute_features, exact
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.probes import alignment, effective_rank, knn_leave_one_out, uniformity
from ssl_transfer.probes.checks import check_features
from ssl_transfer.probes.splits import shuffled

# Enough pairs for three digits of alignment and uniformity, and more rows than most embeddings have dimensions.
HEALTH_IMAGES = 1024


class Monitor:
    """Every ``every`` steps: kNN among ``count`` images, and the health of their embeddings.

    ``knn``: the share of the images that the others classify rightly, on backbone features, where there are labels.
    ``alignment`` of two views of an image and ``uniformity`` and ``effective_rank`` of the first, on what the model
    gives (its head's output). ``monitor_seconds`` is what they cost, ``monitor_share`` that over the time since they
    were taken last. Images and views are functions of the seed, and equal on every number of processes.
    """

    def __init__(
        self,
        model: Callable[[], EmbeddingModel],
        images: Images,
        views: Sequence[Augment],
        *,
        every: int,
        count: int,
        k: int,
        seed: int,
    ):
        rows = shuffled(len(images), seed, len(images))[:count].sort().values
        self.model, self.images, self.rows = model, images.subset(rows), rows
        self.views, self.every, self.seed = views, every, seed
        self.k = min(k, len(rows) - 1)
        self._last = time.perf_counter()

    def __call__(self, step: int) -> dict[str, float]:
        """The figures after this step, or nothing where none are due."""
        if (step + 1) % self.every:
            return {}
        start = time.perf_counter()
        model = copy.deepcopy(self.model()).eval()
        with exact():
            figures = self._knn(model) | self._health(model)
        now = time.perf_counter()
        figures |= {"monitor_seconds": now - start, "monitor_share": (now - start) / (now - self._last)}
        self._last = now
        return figures

    def _knn(self, model: EmbeddingModel) -> dict[str, float]:
        middle = self.images.middle(self.views[0].size)
        features = compute_features(model, middle)
        check_features(features, f"the model's output for {middle.name} {middle.split}")
        if middle.labels is None:
            return {}
        ((_, accuracy),) = knn_leave_one_out(features, middle.labels, k=self.k).items()
        return {"knn": accuracy}

    def _health(self, model: EmbeddingModel) -> dict[str, float]:
        count = min(HEALTH_IMAGES, len(self.images))
        first, second = (self._embed(model, count, view) for view in range(2))
        return {
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "effective_rank": effective_rank(first),
        }

    @torch.no_grad()
    def _embed(self, model: EmbeddingModel, count: int, view: int) -> Tensor:
        """Embeddings of one view of the first images; each process computes its part."""
        augment = self.views[view % len(self.views)]
        own = shard(count)
        pixels, index = self.images.pixels[own], self.rows[own]
        if len(index) == 0:  # more processes than images
            return gather_shards(torch.empty(0, model.embedding_dim, device=pixels.device), count)
        return gather_shards(model(augment(pixels, seed=self.seed, epoch=0, index=index, view=view)).float(), count)
