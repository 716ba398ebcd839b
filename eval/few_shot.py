"""Few-shot: logistic regression on a few labeled images of each class, mean ± sd over draws of them.

accelerate launch eval/few_shot.py runs/digits-transfer
python eval/few_shot.py --timm resnet18 --dataset cifar10 --labels-per-class 1 5 10 --fractions 0.01 0.1
python eval/few_shot.py --features features.npz --draws 50
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Score every number of labels."""
    return measures.few_shot(
        subject,
        labels_per_class=given.labels_per_class,
        fractions=given.fractions,
        draws=given.draws,
        seed=given.seed,
    )


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--labels-per-class", {"type": int, "nargs": "*", "default": [1, 5, 10], "help": "labeled images of each"}),
        ("--fractions", {"type": float, "nargs": "*", "default": [], "help": "shares of each class, such as 0.01 0.1"}),
        ("--draws", {"type": int, "default": 10, "help": "of the labeled images"}),
        ("--seed", {"type": int, "default": 0, "help": "of the draws"}),
    )
