"""Each probe as a measure: of a subject, with the protocol beside every number.

What a measure returns goes into ``scores.json`` and tables; the name of its column is that of its protocol
(:mod:`ssl_transfer.scoring.columns`).
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from ssl_transfer import probes
from ssl_transfer.data import Images
from ssl_transfer.models import ClassifierHead
from ssl_transfer.probes.neighbors import Metric
from ssl_transfer.scoring import columns
from ssl_transfer.scoring.augmented import augmentation, augmented_features, trainable
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject, labels_of


def knn(
    subject: Subject,
    *,
    k: Sequence[int],
    temperature: Sequence[float] = (0.1,),
    metric: Metric = "cosine",
    weighted: bool = True,
) -> list[Score]:
    """Nearest neighbors in the training split, for every pair of ``k`` and ``temperature``."""
    found = probes.knn_accuracy(
        *_splits(subject), k=list(k), temperature=list(temperature), metric=metric, weighted=weighted
    )
    shared = {"probe": "knn", "metric": metric, "vote": "exp(cosine / temperature)" if weighted else "majority"}
    return [
        subject.score(columns.knn(k, t, metric), accuracy, shared | {"k": k, "temperature": t})
        for (k, t), accuracy in found.items()
    ]


def linear_probe(
    subject: Subject,
    *,
    protocol: str = "lbfgs",
    epochs: int = 10,
    augment: str = "crop",
    folds: bool = False,
    seed: int = 0,
) -> list[Score]:
    """A linear classifier on the frozen features, by one of three protocols.

    With ``folds`` one for each fold of the training split that the data set predefines, as STL-10 asks for (Coates et
    al., AISTATS 2011): mean and standard deviation of their accuracies on the whole test split.
    """
    column = columns.linear_probe(protocol, epochs, folds)
    if not folds:
        accuracy, settings = _linear(subject, protocol, epochs, augment, seed)
        return [subject.score(column, accuracy, settings)]
    rows_of_folds = _folds(subject)
    found = [_linear(subject, protocol, epochs, augment, seed, rows) for rows in rows_of_folds]
    accuracies = torch.tensor([accuracy for accuracy, _ in found], dtype=torch.float64)
    shared = {
        key: _shared([settings[key] for _, settings in found]) for key in found[0][1] if key != "held_out_accuracy"
    }
    spread = {"sd": accuracies.std().item(), "n": len(found)}
    return [subject.score(column, accuracies.mean().item(), shared | {"folds": len(found)}, **spread)]


def _linear(
    subject: Subject, protocol: str, epochs: int, augment: str, seed: int, rows: Tensor | None = None
) -> tuple[float, dict[str, Any]]:
    """Accuracy and settings of a linear classifier on all training images, or on those at ``rows``."""
    train_x, train_y, test_x, test_y = _splits(subject)
    if rows is not None:
        train_x, train_y = train_x[rows], train_y[rows]
    if protocol == "lbfgs":
        result: Any = probes.linear_probe(train_x, train_y, test_x, test_y, seed=seed)
        settings = {"normalization": "standardized", "n_classifiers": len(result.held_out_accuracy)}
    else:
        view = partial(augmented_features, subject, augment, seed, rows) if protocol == "augmented" else None
        result = probes.sgd_probe(train_x, train_y, test_x, test_y, epochs=epochs, seed=seed, view=view)
        settings = {"normalization": "standardized", "augment": augment if view else "none"}
    settings |= {"probe": "linear", "protocol": protocol, "at_grid_edge": result.at_grid_edge, **_facts(result)}
    return result.accuracy, settings


def _folds(subject: Subject) -> list[Tensor]:
    train = None if subject.images is None else subject.images[0]
    if train is None or train.folds is None:
        what = f"{subject.name} is a table of features, which" if train is None else f"{train.name} {train.split}"
        raise ValueError(f"{what} has no predefined folds, unlike the training split of stl10: leave out folds")
    return [fold.to(subject.features.train_x.device) for fold in train.folds]


def _shared(values: Sequence[Any]) -> Any:
    """What is the same in all folds, or else the list of what it is in each."""
    return values[0] if all(value == values[0] for value in values) else list(values)


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
    subject: Subject,
    *,
    fraction: float = 0.1,
    epochs: int = 30,
    batch_size: int = 256,
    augment: str = "crop",
    seed: int = 0,
) -> list[Score]:
    """The whole network trained on a fraction of the labels."""
    network, train, test = trainable(subject)
    result = probes.finetune(
        network,
        _held(train),
        labels_of(train),
        _held(test),
        labels_of(test),
        augment=augmentation(augment, train, seed=seed),
        fraction=fraction,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    settings = {"probe": "finetune", "fraction": fraction, "augment": augment, **_facts(result)}
    return [subject.score(columns.finetune(fraction, epochs, batch_size), result.accuracy, settings)]


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


def classification(subject: Subject, *, bins: int = 15, classes: int | None = None) -> list[Score]:
    """Top-1, top-5 and calibration error of the model's own classifier; nothing of a model that has none.

    With ``classes``, nothing of a classifier of another number of classes either.
    """
    head = getattr(subject.network, "head", None)
    if not isinstance(head, ClassifierHead) or classes not in (None, head.embedding_dim):
        return []
    found = probes.classification(subject.features.test_x, subject.features.test_y, bins=bins)
    settings = {"probe": "classification", "split": "test", "epoch": "last", "bins": bins}
    values = (found.top1, found.top5, found.calibration_error)
    return [
        subject.score(name, value, settings) for name, value in zip(columns.classification(bins), values, strict=True)
    ]


def _splits(subject: Subject) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features = subject.features
    return features.train_x, features.train_y, features.test_x, features.test_y


def _facts(result: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(result).items() if key != "accuracy"}


def _column(subject: Subject, name: str, metric: str) -> str:
    return columns.on_test_images(name, metric, subject.layer)


def refuse_streamed(images: Images) -> NoReturn:
    """Say that images which are not held cannot be fine-tuned on."""
    raise ValueError(f"fine-tuning needs images in memory, and {images.name} is streamed; set data.resident=true.")


def _held(images: Images) -> Tensor:
    if not isinstance(images.pixels, Tensor):
        refuse_streamed(images)
    return images.pixels
