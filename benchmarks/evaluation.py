"""Every probe on the features of real images, beside scikit-learn and pytorch-metric-learning on the same features.

    python benchmarks/evaluation.py runs/cifar10-transfer-cpu --teacher runs/cifar10-simclr-cpu --root data

Scores the trained network of a run and the same network untrained, and prints the table of docs/evaluation.md. The
peers get the features, and what a probe has chosen (its penalty, its labeled images), and predict by themselves.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from ssl_transfer.data import load_images
from ssl_transfer.features.model_features import ModelFeatures, features_of
from ssl_transfer.models.checkpoint import build_model, load_model
from ssl_transfer.probes.splits import rank_in_class
from ssl_transfer.scores.agreement import Agreement
from ssl_transfer.scores.base import Measuring
from ssl_transfer.scores.clustering import Clustering
from ssl_transfer.scores.few_shot import FewShot
from ssl_transfer.scores.finetune import Finetune
from ssl_transfer.scores.knn import KNN
from ssl_transfer.scores.linear_probe import LinearProbe
from ssl_transfer.scores.retrieval import Retrieval
from ssl_transfer.scores.score import Score

DRAWS = 10


def knn_peer(x: dict[str, np.ndarray], scores: list[Score]) -> dict[str, float]:
    """Majority and weighted votes by KNeighborsClassifier."""
    found = {}
    for name, weights in (("kNN 20 majority", "uniform"), ("kNN 20", lambda distance: np.exp((1 - distance) / 0.1))):
        model = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=weights)
        found[name] = model.fit(x["train_x"], x["train_y"]).score(x["test_x"], x["test_y"])
    return found


def linear_peer(x: dict[str, np.ndarray], scores: list[Score]) -> dict[str, float]:
    """LogisticRegression at the C that the probe chose, in float64."""
    strength = next(score.protocol["strength"] for score in scores if score.metric == "linear")
    scaler = StandardScaler().fit(x["train_x"].astype(np.float64))
    model = LogisticRegression(C=1 / (strength * len(x["train_x"])), tol=1e-6, max_iter=3000)
    model.fit(scaler.transform(x["train_x"]), x["train_y"])
    return {"linear": model.score(scaler.transform(x["test_x"]), x["test_y"])}


def few_shot_peer(x: dict[str, np.ndarray], scores: list[Score]) -> dict[str, float]:
    """LogisticRegression(C=10) on the same labeled images."""
    center = x["train_x"].mean(axis=0, dtype=np.float64)
    train, test = (normalize(x[part] - center) for part in ("train_x", "test_x"))
    places = [rank_in_class(torch.from_numpy(x["train_y"]), 0, draw).numpy() for draw in range(DRAWS)]
    found = {}
    for name, labels in (("1/class", 1), ("10/class", 10), ("1 %", 50)):
        fits = [
            LogisticRegression(C=10, tol=1e-7, max_iter=3000).fit(train[r], x["train_y"][r])
            for r in (place < labels for place in places)
        ]
        found[name] = float(np.mean([model.score(test, x["test_y"]) for model in fits]))
    return found


def retrieval_peer(x: dict[str, np.ndarray], scores: list[Score]) -> dict[str, float]:
    """AccuracyCalculator, which leaves the query out by its place as well."""
    names = {"R@1": "precision_at_1", "MAP@R": "mean_average_precision_at_r", "R-precision": "r_precision"}
    peer = AccuracyCalculator(
        include=tuple(names.values()),
        k="max_bin_count",
        knn_func=CustomKNN(CosineSimilarity(), batch_size=1000),
        device=torch.device("cpu"),
    )
    found = peer.get_accuracy(torch.from_numpy(x["test_x"]), torch.from_numpy(x["test_y"]))
    return {ours: found[theirs] for ours, theirs in names.items()}


def clustering_peer(x: dict[str, np.ndarray], scores: list[Score]) -> dict[str, float]:
    """KMeans on normalized rows."""
    clusters = KMeans(10, n_init=10, random_state=0).fit_predict(normalize(x["test_x"]))
    return {"NMI": normalized_mutual_info_score(x["test_y"], clusters)}


ASKED = (
    KNN(k=[20, 200]),
    KNN(k=[20], weighted=False),
    LinearProbe(),
    LinearProbe(protocol="sgd"),
    LinearProbe(protocol="augmented", epochs=2),
    FewShot(labels_per_class=[1, 10], fractions=[0.01], draws=DRAWS),
    Finetune(fraction=0.01, epochs=60),
    Retrieval(k=[1]),
    Clustering(),
    Agreement(),
)


def ours(features: ModelFeatures, teacher: ModelFeatures) -> list[Score]:
    """All probes of one network."""
    return [score for kind in ASKED for score in kind.measure(features, Measuring(teacher=teacher))]


def peers(measured: ModelFeatures, scores: list[Score]) -> dict[str, float]:
    """What other libraries make of the same features, by the column of ours."""
    features = measured.features
    x = {name: getattr(features, name).numpy() for name in ("train_x", "train_y", "test_x", "test_y")}
    found: dict[str, float] = {}
    for peer in (knn_peer, linear_peer, few_shot_peer, retrieval_peer, clustering_peer):
        found |= peer(x, scores)
    return found


def main() -> None:
    """Print the table as Markdown."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--teacher", type=Path, required=True)
    arguments.add_argument("--dataset", default="cifar10")
    arguments.add_argument("--root", type=Path, default=Path("data"))
    arguments.add_argument("--cache", type=Path, help="where features are kept")
    given = arguments.parse_args()

    splits = [load_images(given.dataset, given.root, split=split, download=False) for split in ("train", "test")]
    trained, spec = load_model(given.run)
    torch.manual_seed(0)
    models = {"untrained": build_model(spec).eval(), "trained": trained}
    teacher = features_of("teacher", load_model(given.teacher)[0], splits, cache=given.cache)
    table: dict[str, list[str]] = {}
    for name, model in models.items():
        measured = features_of(name, model, splits, cache=given.cache)
        start = time.perf_counter()
        scores = ours(measured, teacher)
        middle = time.perf_counter()
        beside = peers(measured, scores)
        print(f"{name}: ours {middle - start:.0f} s, peers {time.perf_counter() - middle:.0f} s")
        for score in scores:
            spread = "" if score.sd is None else f" ± {100 * score.sd:.2f}"
            other = f"{100 * beside[score.metric]:.2f}" if score.metric in beside else ""
            table.setdefault(score.metric, []).extend([f"{100 * score.value:.2f}{spread}", other])
    print(f"\n| {given.dataset}, {spec.backbone} | " + " | ".join(f"{name} | peer" for name in models) + " |")
    print("|---|" + "---:|---:|" * len(models))
    for metric, cells in table.items():
        print(f"| {metric} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
