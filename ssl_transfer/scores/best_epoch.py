"""Recall@K of the epoch that was best on the test images, for tables whose authors chose so."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ssl_transfer.scores.base import ScoredImages, ScoreSection, WatchedTraining, Watcher, listed
from ssl_transfer.scores.score import Role, Score
from ssl_transfer.section import Count, Counts
from ssl_transfer.training.metrics import NAME, read_metrics


class BestOnTest(ScoreSection):
    """Recall@K of the epoch that was best at the first K on the test split, for tables that choose so; no fair score.

    Euclidean and not normalized, in what the model gives. It is measured while the model trains.
    """

    during_training = True
    protocol_keys = ("metric", "split", "epoch_chosen_on", "epochs_measured")

    kind: Literal["best_on_test"] = "best_on_test"
    k: Counts = Field((1, 2, 4, 8), description="depths of Recall@K; the first chooses the epoch")
    every: Count = Field(1, description="epochs between two measurements")

    def columns(self) -> list[str]:
        """``R@1 best-on-test``: of an epoch chosen on the images that it is a score of."""
        return [f"R@{k} best-on-test" for k in self.k]

    def check(self, images: ScoredImages) -> None:
        """Also that there is something to find, and as many images as the largest depth."""
        from ssl_transfer.features.model_features import labels_of
        from ssl_transfer.probes.retrieval import images_to_find

        super().check(images)
        images_to_find(labels_of(images.test), k=self.k, queries=images.test.queries)

    @classmethod
    def took(cls, protocol: Mapping[str, Any]) -> bool:
        """Recall of an epoch that was chosen by it."""
        return "epoch_chosen_on" in protocol

    @classmethod
    def explain(cls, protocol: Mapping[str, Any]) -> str:
        """That it is no fair score."""
        return (
            f"Recall@K (Euclidean) after epoch {listed(protocol, 'chosen_epoch')}, chosen among "
            f"{listed(protocol, 'epochs_measured')} because it was best on these very test images, as some published "
            "tables do: not a fair estimate."
        )

    def watcher(self, training: WatchedTraining) -> Watcher:
        """See :class:`ssl_transfer.training.epoch_recall.RecallOnTest`."""
        from ssl_transfer.training.epoch_recall import RecallOnTest

        every = self.every * training.steps_per_epoch
        recall = RecallOnTest(training.model, training.test(), k=self.k, every=every)
        return lambda step: {recall_key(rank): value for rank, value in recall(step).items()}

    def from_log(self, folder: Path, model: str, role: Role) -> list[Score]:
        """Recall after the epoch whose recall at the first of ``k`` was highest on the test split.

        Raises:
            FileNotFoundError: the run in ``folder`` was trained without measuring it.
            ValueError: the log is damaged.
        """
        rows, damaged = read_metrics(folder / NAME)
        if damaged:
            raise ValueError(
                f"{folder / NAME} has {damaged} damaged lines, so its best epoch is not known: bring back a copy, or "
                "leave out score kind best_on_test"
            )
        measured = [row for row in rows.values() if all(recall_key(rank) in row for rank in self.k)]
        if not measured:
            raise FileNotFoundError(
                f"{folder} holds no Recall@{self.k[0]} on the test split during training, since it was trained without "
                "score kind best_on_test: leave that out, or train again into another folder with train.runs"
            )
        best = max(measured, key=lambda line: line[recall_key(self.k[0])])
        protocol = {
            "probe": "retrieval",
            "metric": "euclidean",
            "layer": "output",
            "split": "test",
            "epoch_chosen_on": "test split",
            "chosen_epoch": math.floor(best["epoch"]) + 1,  # the log has the epochs before the step
            "epochs_measured": len(measured),
        }
        return [
            Score(model, role, column, best[recall_key(rank)], protocol)
            for rank, column in zip(self.k, self.columns(), strict=True)
        ]


def recall_key(rank: int) -> str:
    """What ``metrics.jsonl`` calls Recall@``rank`` on the test split."""
    return f"test_recall_{rank}"
