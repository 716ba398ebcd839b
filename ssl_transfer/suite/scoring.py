"""One model on one data set: its features, and each probe of them, kept so that a stopped suite goes on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ssl_transfer import __version__
from ssl_transfer.features.extraction import exact
from ssl_transfer.features.model_features import ModelFeatures, features_of
from ssl_transfer.files import json_hash, read_json, verified, with_checksum, write_json
from ssl_transfer.models.checkpoint import tensors_hash
from ssl_transfer.probes import multi_label_probe, transfer_probe
from ssl_transfer.scores.attentive_probe import AttentiveProbe
from ssl_transfer.scores.base import Measuring, facts, score
from ssl_transfer.scores.knn import KNN
from ssl_transfer.scores.score import Score
from ssl_transfer.suite.models import Subject
from ssl_transfer.suite.sets import SuiteSet

NEIGHBORS = 20
_SCORES = TypeAdapter(list[Score])


def features(
    subject: Subject, opened: SuiteSet, cache: Path, advance: Callable[[int], None] = lambda count: None
) -> ModelFeatures:
    """The features of both splits, from ``cache`` or computed by all processes and kept there.

    ``advance`` is called with numbers of images that are computed.

    Raises:
        ValueError: an image cannot be decoded, or a feature is not finite.
    """
    splits = opened.train, opened.test
    return features_of(subject.name, subject.model, splits, role=subject.role, cache=cache, advance=advance)


def measure(found: ModelFeatures, opened: SuiteSet, probes: Sequence[str]) -> list[Score]:
    """The scores of one model on one data set by each of ``probes``.

    Images of several classes are scored by the linear probe alone, and pixels by no attentive one.

    Raises:
        ValueError: the data set does not allow it.
    """
    scores: list[Score] = []
    with exact():
        if "linear" in probes:
            scores.append(_linear(found, opened))
        if "knn" in probes and opened.presence is None:
            kind = KNN.model_validate({"k": [min(NEIGHBORS, len(opened.train))]})
            scores += kind.measure(found, Measuring())
        if "attentive" in probes and opened.presence is None:
            scores += AttentiveProbe.model_validate({}).measure(found, Measuring())
    about = {"set": opened.name, "measure": opened.measure, "splits": opened.splits}
    return [_about(own, about) for own in scores]


def _about(own: Score, about: dict[str, Any]) -> Score:
    measured = about["measure"] if own.protocol["probe"] == "linear" else "top-1"
    return replace(own, protocol={**about, "measure": measured, **own.protocol})


def _linear(found: ModelFeatures, opened: SuiteSet) -> Score:
    table = found.held
    device = table.test_x.device
    held_out = None if opened.held_out is None else opened.held_out.to(device)
    if opened.presence is not None:
        train, test = (presence.to(device) for presence in opened.presence)
        result = multi_label_probe(table.train_x, train, table.test_x, test, held_out=held_out, eleven_points=True)
    else:
        result = transfer_probe(
            table.train_x,
            table.train_y,
            table.test_x,
            table.test_y,
            held_out=held_out,
            measure=opened.measure,  # type: ignore[arg-type]
        )
    settings = {key: value for key, value in facts(result).items() if key != "score"}
    chosen_on = "a fifth of each class of train" if opened.held_out is None else "the predefined validation split"
    if opened.presence is not None and opened.held_out is None:
        chosen_on = "a fifth of train"
    shared = {"probe": "linear", "protocol": "Kornblith et al., 2019", "chosen_on": chosen_on}
    return score(found, "linear", result.score, {**shared, "at_grid_edge": result.at_grid_edge, **settings})


class Kept:
    """Scores on disk, one file for each model and data set, under everything that decides them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, subject: Subject, opened: SuiteSet, probes: Sequence[str]) -> Path:
        """Where the scores of a model on a data set are kept."""
        key = {
            "features": subject.key,
            "data": [images.fingerprint for images in (opened.train, opened.test)],
            "held_out": None if opened.held_out is None else int(opened.held_out.sum()),
            "presence": None
            if opened.presence is None
            else tensors_hash(dict(zip("ab", opened.presence, strict=True))),
            "measure": opened.measure,
            "splits": opened.splits,
            "probes": sorted(probes),
            "version": __version__,
        }
        return self.folder / f"{json_hash(key)}.json"

    def read(self, path: Path, subject: Subject, opened: SuiteSet) -> list[Score] | None:
        """The scores in ``path``, under the names of this suite; None where there are none, or damaged ones."""
        try:
            scores = _SCORES.validate_python(verified(read_json(path)).get("scores"))
        except (OSError, ValueError):
            return None
        return [
            replace(own, model=subject.name, role=subject.role, protocol={**own.protocol, "set": opened.name})
            for own in scores
        ]

    def write(self, path: Path, scores: Sequence[Score]) -> None:
        """Keep scores."""
        write_json(path, with_checksum({"scores": [asdict(own) for own in scores]}))


class TimeLeft:
    """How long the rest takes, by what the images of each model have taken so far."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._images: dict[str, int] = {}

    def took(self, subject: Subject, images: int, seconds: float) -> None:
        """Learn from one that is done."""
        self._seconds[subject.name] = self._seconds.get(subject.name, 0.0) + seconds
        self._images[subject.name] = self._images.get(subject.name, 0) + images

    def of(self, waiting: Sequence[tuple[Subject, int]]) -> float:
        """Seconds for these models on so many images each; of a model not seen yet as of the mean of the others."""
        if not self._images:
            return 0.0
        mean = sum(self._seconds.values()) / sum(self._images.values())
        rate = {name: self._seconds[name] / count for name, count in self._images.items()}
        return sum(rate.get(subject.name, mean) * images for subject, images in waiting)


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self) -> float:
        """The seconds until now."""
        return time.monotonic() - self._start
