"""Clustering: do k-means clusters of the test images agree with their classes? NMI and AMI.

accelerate launch eval/clustering.py runs/digits-transfer
python eval/clustering.py --timm resnet18 --dataset cifar10
"""

import argparse

from ssl_transfer import measures
from ssl_transfer.eval_program import evaluate


def measure(subject: measures.Subject, given: argparse.Namespace) -> list[measures.Score]:
    """Cluster the test split into as many groups as it has classes."""
    return measures.clustering(subject, metric=given.metric, seed=given.seed)


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--metric", {"default": "cosine", "choices": ["cosine", "euclidean"], "help": "cosine: rows of norm one"}),
        ("--seed", {"type": int, "default": 0, "help": "where k-means starts"}),
    )
