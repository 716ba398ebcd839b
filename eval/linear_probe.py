"""Linear probe: a linear classifier on frozen features, its setting chosen on held-out training images.

accelerate launch eval/linear_probe.py runs/digits-transfer
python eval/linear_probe.py --timm resnet18 --dataset cifar10
python eval/linear_probe.py --features features.npz --protocol sgd
accelerate launch eval/linear_probe.py runs/cifar10-transfer --protocol augmented --epochs 100

docs/evaluation.md defines the protocols: lbfgs (the default), sgd as in DINOv2, augmented as in MoCo and SimCLR.
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Score the features by the protocol that was named."""
    return measures.linear_probe(
        subject,
        protocol=given.protocol,
        epochs=given.epochs,
        augment=given.augment,
        folds=given.folds,
        seed=given.seed,
    )


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--protocol", {"default": "lbfgs", "choices": ["lbfgs", "sgd", "augmented"]}),
        ("--epochs", {"type": int, "default": 10, "help": "of the protocols sgd and augmented"}),
        ("--augment", {"default": "crop", "metavar": "PRESET", "help": "what the protocol augmented shows"}),
        ("--folds", {"action": "store_true", "help": "one probe for each predefined fold of stl10: mean and sd"}),
        ("--seed", {"type": int, "default": 0, "help": "which training images are held out"}),
        together=lambda given: given.protocol == "augmented",
    )
