"""Clustering: do k-means clusters of the test images agree with their classes? NMI and AMI.

accelerate launch eval/clustering.py runs/digits-transfer
python eval/clustering.py --timm resnet18 --dataset cifar10
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Cluster the test split into as many groups as it has classes."""
    return measures.clustering(subject, metric=given.metric, seed=given.seed)


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--metric", {"default": "cosine", "choices": ["cosine", "euclidean"], "help": "cosine: rows of norm one"}),
        ("--seed", {"type": int, "default": 0, "help": "where k-means starts"}),
        train_features=False,
    )
