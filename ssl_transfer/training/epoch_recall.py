"""Recall on the test split every few epochs, to stand beside tables whose authors chose their epoch on it.

No training and no other score reads these numbers: the model of a run is that of its last step.
"""

import copy
from collections.abc import Callable, Sequence

from ssl_transfer.data import Images
from ssl_transfer.features.extraction import compute_features, exact
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.probes import retrieval


class RecallOnTest:
    """Every ``every`` steps: Recall@K of the test ``images``, by K.

    Neighbors are Euclidean in what the model gives, not normalized, as the authors of the relaxed contrastive loss
    evaluate. A copy of the model is looked at, so that training does not notice.

    Raises:
        ValueError: the images have no labels.
    """

    def __init__(self, model: Callable[[], EmbeddingModel], images: Images, *, k: Sequence[int], every: int):
        if images.labels is None:
            raise ValueError(f"best_on_test needs labels, and {images.name} {images.split} has none.")
        self.model, self.images, self.labels, self.k, self.every = model, images, images.labels, list(k), every

    def __call__(self, step: int) -> dict[int, float]:
        """The figures after this step, or nothing where none are due."""
        if (step + 1) % self.every:
            return {}
        embeddings = compute_features(copy.deepcopy(self.model()).eval(), self.images, layer="output")
        with exact():
            found = retrieval(embeddings, self.labels, k=self.k, metric="euclidean", queries=self.images.queries)
        return dict(found.recall)
