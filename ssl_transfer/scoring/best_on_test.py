"""Recall on the test split every few epochs, to stand beside tables whose authors chose their epoch on it.

No training and no other score reads these numbers: the model of a run is that of its last step.
"""

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.probes import retrieval
from ssl_transfer.scoring import columns
from ssl_transfer.scoring.features import compute_features, exact
from ssl_transfer.scoring.scores import Score


class RecallOnTest:
    """Every so many steps: Recall@K of the test ``images``, as ``test_recall_<K>`` in the log of training.

    Neighbors are Euclidean in what the model gives, not normalized, as the authors of the relaxed contrastive loss
    evaluate. A copy of the model is looked at, so that training does not notice.
    """

    def __init__(self, model: Callable[[], EmbeddingModel], images: Images, *, k: Sequence[int], every: int):
        if images.labels is None:
            raise ValueError(f"best_on_test needs labels, and {images.name} {images.split} has none.")
        self.model, self.images, self.labels, self.k, self.every = model, images, images.labels, list(k), every

    def __call__(self, step: int) -> dict[str, float]:
        """The figures after this step, or nothing where none are due."""
        if (step + 1) % self.every:
            return {}
        embeddings = compute_features(copy.deepcopy(self.model()).eval(), self.images, layer="output")
        with exact():
            found = retrieval(embeddings, self.labels, k=self.k, metric="euclidean", queries=self.images.queries)
        return {_key(rank): value for rank, value in found.recall.items()}


def best_on_test(folder: Path, model: str, k: Sequence[int]) -> list[Score]:
    """Recall of ``model`` after the epoch whose recall at the first of ``k`` was highest on the test split.

    Raises:
        FileNotFoundError: the run in ``folder`` was trained without measuring it.
    """
    log = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    measured = [line for line in lines if all(_key(rank) in line for rank in k)]
    if not measured:
        raise FileNotFoundError(
            f"{folder} holds no Recall@{k[0]} on the test split during training, since it was trained without score "
            "kind best_on_test: leave that out, or train again into another folder with train.runs"
        )
    best = max(measured, key=lambda line: line[_key(k[0])])
    protocol = {
        "probe": "retrieval",
        "metric": "euclidean",
        "layer": "output",
        "split": "test",
        "epoch_chosen_on": "test split",
        "chosen_epoch": math.floor(best["epoch"]) + 1,  # the log has the epochs before the step
        "epochs_measured": len(measured),
    }
    return [Score(model, columns.best_on_test(rank), best[_key(rank)], protocol) for rank in k]


def _key(rank: int) -> str:
    return f"test_recall_{rank}"
