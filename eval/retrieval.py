"""Retrieval: each test image is searched among the others; Recall@K, MAP@R and R-precision of its class.

accelerate launch eval/retrieval.py runs/digits-transfer
python eval/retrieval.py --timm resnet18 --dataset cifar10 --k 1 10 100
python eval/retrieval.py runs/digits-transfer --layer output --metric euclidean
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Score the test split against itself."""
    return measures.retrieval(subject, k=given.k, metric=given.metric)


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--k", {"type": int, "nargs": "+", "default": [1, 2, 4, 8], "help": "depths of Recall@K"}),
        ("--metric", {"default": "cosine", "choices": ["cosine", "euclidean"]}),
        train_features=False,
    )
