"""Fine-tuning: the whole network and a linear layer, trained on a labeled fraction of each class as SimCLR does.

python eval/finetune.py runs/digits-transfer --fraction 0.1 --augment digits
python eval/finetune.py --timm resnet18 --dataset cifar10 --fraction 0.01 --epochs 60
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Train a copy of the network and score its last state."""
    return measures.finetune(
        subject,
        fraction=given.fraction,
        epochs=given.epochs,
        batch_size=given.batch_size,
        augment=given.augment,
        seed=given.seed,
    )


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--fraction", {"type": float, "default": 0.1, "help": "of each class that is labeled"}),
        ("--epochs", {"type": int, "default": 30}),
        ("--batch-size", {"type": int, "default": 256}),
        ("--augment", {"default": "crop", "metavar": "PRESET", "help": "what the network sees in training"}),
        ("--seed", {"type": int, "default": 0, "help": "which images are labeled, and their order"}),
        train_features=False,
    )
