"""Weighted cosine nearest neighbours on frozen features (Wu et al., CVPR 2018): nothing is trained or chosen.

accelerate launch eval/knn.py runs/digits-transfer
python eval/knn.py --timm resnet18 --dataset cifar10 --k 20 200
python eval/knn.py --features features.npz --temperature 0.07 0.1
"""

import argparse

from ssl_transfer.evaluation import evaluate
from ssl_transfer.probes import Features, knn_accuracy


def probe(features: Features, given: argparse.Namespace) -> list[str]:
    """Score every pair of k and temperature from one search."""
    accuracies = knn_accuracy(
        features.train_x,
        features.train_y,
        features.test_x,
        features.test_y,
        k=given.k,
        temperature=given.temperature,
    )
    return [f"kNN k={k} T={temperature}  {100 * accuracy:.2f} %" for (k, temperature), accuracy in accuracies.items()]


if __name__ == "__main__":
    evaluate(
        __doc__,
        probe,
        ("--k", {"type": int, "nargs": "+", "default": [20, 200], "help": "neighbours that vote"}),
        ("--temperature", {"type": float, "nargs": "+", "default": [0.1], "help": "votes weigh exp(cosine / T)"}),
    )
