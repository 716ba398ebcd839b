"""Weighted cosine nearest neighbors on frozen features (Wu et al., CVPR 2018): nothing is trained or chosen.

accelerate launch eval/knn.py runs/digits-transfer
python eval/knn.py --timm resnet18 --dataset cifar10 --k 20 200
python eval/knn.py --features features.npz --temperature 0.07 0.1
python eval/knn.py runs/digits-transfer --layer projection --majority --metric euclidean
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Score every pair of k and temperature from one search."""
    return measures.knn(
        subject, k=given.k, temperature=given.temperature, metric=given.metric, weighted=not given.majority
    )


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--k", {"type": int, "nargs": "+", "default": [20, 200], "help": "neighbors that vote"}),
        ("--temperature", {"type": float, "nargs": "+", "default": [0.1], "help": "votes weigh exp(cosine / T)"}),
        ("--majority", {"action": "store_true", "help": "every vote weighs one"}),
        ("--metric", {"default": "cosine", "choices": ["cosine", "euclidean"], "help": "euclidean is for --majority"}),
    )
