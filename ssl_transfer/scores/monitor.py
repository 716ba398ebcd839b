"""Figures taken while the model trains."""

from typing import Annotated, Literal

from pydantic import Field

from ssl_transfer.scores.base import ScoreSection, WatchedTraining, Watcher
from ssl_transfer.section import Count


class Monitor(ScoreSection):
    """Figures of training images, taken every few epochs while the model trains; no score of the end."""

    needs_test_labels = False
    during_training = True
    alone = True

    kind: Literal["monitor"] = "monitor"
    every: Count = Field(description="epochs between two times")
    images: Annotated[int, Field(ge=2, lt=2**31)] = Field(5000, description="that are looked at")
    k: Count = Field(20, description="neighbors that classify an image")

    def columns(self) -> list[str]:
        """None: what it finds is in metrics.jsonl."""
        return []

    def watcher(self, training: WatchedTraining) -> Watcher:
        """See :class:`ssl_transfer.training.monitor.Monitor`."""
        from ssl_transfer.training import monitor

        return monitor.Monitor(
            training.model,
            training.images,
            training.views,
            every=self.every * training.steps_per_epoch,
            count=self.images,
            k=self.k,
            seed=training.seed,
        )
