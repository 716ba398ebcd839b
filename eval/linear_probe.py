"""Linear probe: logistic regression on frozen, standardised features, its penalty chosen on held-out training images.

accelerate launch eval/linear_probe.py runs/digits-transfer
python eval/linear_probe.py --timm resnet18 --dataset cifar10
python eval/linear_probe.py --features features.npz
"""

import argparse

from ssl_transfer.evaluation import evaluate
from ssl_transfer.probes import Features, linear_probe


def probe(features: Features, given: argparse.Namespace) -> list[str]:
    """Score the features and tell how the penalty was chosen."""
    result = linear_probe(features.train_x, features.train_y, features.test_x, features.test_y, seed=given.seed)
    edge = ", at the edge of the grid" if result.at_grid_edge else ""
    return [
        f"linear probe  {100 * result.accuracy:.2f} %",
        f"L2 strength {result.strength:.2e} of {len(result.held_out_accuracy)}{edge}, chosen on {result.n_held_out:,} "
        f"held-out training images (seed {result.seed})",
        f"fitted on {result.n_train:,}, scored once on {result.n_test:,}",
    ]


if __name__ == "__main__":
    seed = ("--seed", {"type": int, "default": 0, "help": "which training images are held out"})
    evaluate(__doc__, probe, seed)
