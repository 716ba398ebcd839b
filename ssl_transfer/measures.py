"""Each probe as a measure: of a subject, with the protocol beside every number.

A subject is one model's features of labelled images. What a measure returns goes into ``scores.json`` and tables; the
name of its column is that of its protocol (:mod:`ssl_transfer.columns`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ssl_transfer import columns, probes
from ssl_transfer.data import PRESETS, Augment, Images
from ssl_transfer.distributed import gather_shards, shard
from ssl_transfer.models import ClassifierHead
from ssl_transfer.probes.neighbors import Metric


@dataclass(frozen=True)
class Score:
    """One number: whose, which, and how it was taken. Accuracies are fractions of the test split."""

    model: str
    metric: str
    value: float
    protocol: dict[str, Any]
    sd: float | None = None  # over draws, where there are several
    n: int | None = None


@dataclass(frozen=True)
class Subject:
    """Whose features these are, and how they were computed.

    ``layer`` is what was asked for; the protocol says what was given, which for the pixels is another. ``network``
    gives the features of images in [0, 1], for the measures that show it augmented ``images``.
    """

    name: str
    features: probes.Features
    protocol: dict[str, Any]
    layer: str = "features"
    network: nn.Module | None = None
    images: tuple[Images, Images] | None = None

    def score(self, metric: str, value: float, settings: dict[str, Any], **more: Any) -> Score:
        """A score of this subject by the protocol ``settings``."""
        return Score(self.name, metric, value, self.protocol | settings, **more)


def knn(
    subject: Subject,
    *,
    k: Sequence[int],
    temperature: Sequence[float] = (0.1,),
    metric: Metric = "cosine",
    weighted: bool = True,
) -> list[Score]:
    """Nearest neighbours in the training split, for every pair of ``k`` and ``temperature``."""
    found = probes.knn_accuracy(
        *_splits(subject), k=list(k), temperature=list(temperature), metric=metric, weighted=weighted
    )
    shared = {"probe": "knn", "metric": metric, "vote": "exp(cosine / temperature)" if weighted else "majority"}
    return [
        subject.score(columns.knn(k, t, metric), accuracy, shared | {"k": k, "temperature": t})
        for (k, t), accuracy in found.items()
    ]


def linear_probe(
    subject: Subject, *, protocol: str = "lbfgs", epochs: int = 10, augment: str = "crop", seed: int = 0
) -> list[Score]:
    """A linear classifier on the frozen features, by one of three protocols."""
    if protocol == "lbfgs":
        result: Any = probes.linear_probe(*_splits(subject), seed=seed)
        settings = {"normalization": "standardized", "n_classifiers": len(result.held_out_accuracy)}
    else:
        view = partial(_view, subject, augment, seed) if protocol == "augmented" else None
        result = probes.sgd_probe(*_splits(subject), epochs=epochs, seed=seed, view=view)
        settings = {"normalization": "standardized", "augment": augment if view else "none"}
    settings |= {"probe": "linear", "protocol": protocol, "at_grid_edge": result.at_grid_edge, **_facts(result)}
    return [subject.score(columns.linear_probe(protocol, epochs), result.accuracy, settings)]


def few_shot(
    subject: Subject,
    *,
    labels_per_class: Sequence[int] = (),
    fractions: Sequence[float] = (),
    draws: int = 10,
    seed: int = 0,
) -> list[Score]:
    """Logistic regression on a few labels of each class, or on a fraction of them, over several draws."""
    amounts = [*labels_per_class, *fractions]
    found = probes.few_shot(*_splits(subject), labels_per_class=amounts, draws=draws, seed=seed)
    shared = {"probe": "few_shot", "normalization": "centered, norm 1", "C": 10.0, "seed": seed}
    return [
        subject.score(
            columns.few_shot(amount, draws),
            result.mean,
            shared | {"labels_per_class" if amount >= 1 else "fraction": amount, "labels": result.labels},
            sd=result.sd,
            n=result.draws,
        )
        for amount, result in found.items()
    ]


def finetune(
    subject: Subject, *, fraction: float = 0.1, epochs: int = 30, augment: str = "crop", seed: int = 0
) -> list[Score]:
    """The whole network trained on a fraction of the labels."""
    network, train, test = _trainable(subject)
    result = probes.finetune(
        network,
        _held(train),
        subject.features.train_y,
        _held(test),
        subject.features.test_y,
        augment=partial(_augmented, _augmentation(augment, train), seed),
        fraction=fraction,
        epochs=epochs,
        seed=seed,
    )
    settings = {"probe": "finetune", "fraction": fraction, "augment": augment, **_facts(result)}
    return [subject.score(columns.finetune(fraction, epochs), result.accuracy, settings)]


def retrieval(subject: Subject, *, k: Sequence[int] = (1, 2, 4, 8), metric: Metric = "cosine") -> list[Score]:
    """Recall@K, MAP@R and R-precision of each test image among all others, or of the queries in the gallery."""
    x, y = subject.features.test_x, subject.features.test_y
    queries = None if subject.images is None else subject.images[1].queries
    found = probes.retrieval(x, y, k=list(k), metric=metric, queries=queries)
    settings = {"probe": "retrieval", "metric": metric, "split": "test", "n_queries": found.n_queries}
    values = {f"R@{depth}": value for depth, value in found.recall.items()}
    values |= {"MAP@R": found.map_at_r, "R-precision": found.r_precision}
    return [subject.score(_column(subject, name, metric), value, settings) for name, value in values.items()]


def clustering(subject: Subject, *, metric: Metric = "cosine", seed: int = 0) -> list[Score]:
    """Mutual information of the test images' k-means clusters and their classes."""
    found = probes.clustering(subject.features.test_x, subject.features.test_y, metric=metric, seed=seed)
    settings = {"probe": "clustering", "split": "test", "metric": metric, "n_clusters": found.n_clusters, "seed": seed}
    settings |= {"normalization": "norm 1" if metric == "cosine" else "none", "restarts": 10}
    values = {"NMI": found.nmi, "AMI": found.ami}
    return [subject.score(_column(subject, name, metric), value, settings) for name, value in values.items()]


def agreement(subject: Subject, teacher: Subject, *, k: int = 10, seed: int = 0) -> list[Score]:
    """How much of the teacher's geometry the subject has, on the test images."""
    found = probes.agreement(subject.features.test_x, teacher.features.test_x, k=k, seed=seed)
    settings = {"probe": "agreement", "split": "test", "metric": "cosine", "k": k, "seed": seed}
    settings |= {"teacher": teacher.name, "teacher_layer": teacher.protocol["layer"]}
    values = {f"overlap {k}": found.neighbor_overlap, "CKA": found.linear_cka, "Spearman": found.distance_spearman}
    return [subject.score(_column(subject, name, "cosine"), value, settings) for name, value in values.items()]


def classification(subject: Subject, *, bins: int = 15) -> list[Score]:
    """Top-1, top-5 and calibration error of the model's own classifier; nothing of a model that has none."""
    if not isinstance(getattr(subject.network, "head", None), ClassifierHead):
        return []
    found = probes.classification(subject.features.test_x, subject.features.test_y, bins=bins)
    settings = {"probe": "classification", "split": "test", "epoch": "last", "bins": bins}
    values = (found.top1, found.top5, found.calibration_error)
    return [
        subject.score(name, value, settings) for name, value in zip(columns.classification(bins), values, strict=True)
    ]


def retention(scores: Sequence[Score], student: str, teacher: str) -> dict[str, float]:
    """The share of the teacher's score that the student has, by column, where the teacher's is above zero."""
    ours, theirs = (
        {score.metric: score.value for score in scores if score.model == name} for name in (student, teacher)
    )
    return {
        metric: probes.retention(ours[metric], value)
        for metric, value in theirs.items()
        if metric in ours and value > 0 and not metric.startswith("ECE")  # an error, better when it is smaller
    }


def _splits(subject: Subject) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features = subject.features
    return features.train_x, features.train_y, features.test_x, features.test_y


def _facts(result: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(result).items() if key != "accuracy"}


def _column(subject: Subject, name: str, metric: str) -> str:
    return columns.on_test_images(name, metric, subject.layer)


def _trainable(subject: Subject) -> tuple[nn.Module, Images, Images]:
    if subject.network is None or subject.images is None:
        raise ValueError(f"{subject.name} is a table of features; this protocol needs the network and its images.")
    return subject.network, *subject.images


def _held(images: Images) -> Tensor:
    if not isinstance(images.pixels, Tensor):
        raise ValueError(f"fine-tuning needs images in memory, and {images.name} is streamed; set data.resident=true.")
    return images.pixels


def _augmentation(preset: str, images: Images) -> Augment:
    return Augment(images.pixels.shape[-1], **PRESETS[preset][0])


def _augmented(augment: Augment, seed: int, pixels: Tensor, epoch: int, rows: Tensor) -> Tensor:
    return augment(pixels, seed=seed, epoch=epoch, index=rows, view=0)


def _view(subject: Subject, preset: str, seed: int, epoch: int, rows: Tensor) -> Tensor:
    """The network's features of some training images as an epoch shows them; processes share the work."""
    network, images, _ = _trainable(subject)
    own = rows[shard(len(rows))]
    views = _augmented(_augmentation(preset, images), seed, images.pixels[own], epoch, own)
    return gather_shards(_embed(network, views, width=subject.features.train_x.shape[1]), len(rows))


@torch.no_grad()
def _embed(network: Callable[[Tensor], Tensor], views: Tensor, width: int) -> Tensor:
    return network(views).float() if len(views) else views.new_empty(0, width)
