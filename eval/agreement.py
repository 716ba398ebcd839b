"""Agreement: how much of a teacher's geometry a student has, on the same test images and without their labels.

accelerate launch eval/agreement.py runs/digits-transfer --teacher runs/digits-simclr
python eval/agreement.py runs/cifar10-transfer --teacher timm:resnet18 --k 10
python eval/agreement.py --features student.npz --teacher teacher.npz
"""

import argparse

from ssl_transfer.scoring import measures
from ssl_transfer.scoring.program import evaluate, load_subject
from ssl_transfer.scoring.scores import Score
from ssl_transfer.scoring.subject import Subject


def measure(subject: Subject, given: argparse.Namespace) -> list[Score]:
    """Neighbor overlap, linear CKA and the rank correlation of distances; 1 for a rotated, scaled copy."""
    teacher = load_subject(given.teacher, given, train_features=False)
    return measures.agreement(subject, teacher, k=given.k, seed=given.seed)


if __name__ == "__main__":
    evaluate(
        __doc__,
        measure,
        ("--teacher", {"required": True, "help": "a run folder, timm:NAME or an npz file of features"}),
        ("--k", {"type": int, "default": 10, "help": "neighbors that are compared"}),
        ("--seed", {"type": int, "default": 0, "help": "which images' distances are ranked"}),
        train_features=False,
        together=lambda given: True,
    )
