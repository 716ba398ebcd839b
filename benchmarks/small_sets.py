"""Linear probes on scikit-learn's small data sets, where many settings have the same accuracy on the held-out tenth.

    python benchmarks/small_sets.py            # prints the table of docs/evaluation.md, a minute on one core

Each set is split 20 times into halves for training and test, by class. Of equal settings the probes take the one of the
lowest cross-entropy; beside it is what the strongest penalty or the smallest rate among them scores. scikit-learn
chooses among the same penalties by cross-validation in five folds, and so on every training row.
"""

import argparse
import warnings
from collections.abc import Callable
from statistics import mean, stdev

import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ssl_transfer.probes import DEFAULT_GRID, linear_probe, sgd_probe

SETS = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}
Split = tuple[Tensor, Tensor, Tensor, Tensor]


def linear(split: Split) -> tuple[float, float]:
    """Test accuracy of the strength that is chosen, and of the strongest that ties with it."""
    result = linear_probe(*split)
    best = max(result.held_out_accuracy.values())
    first = max(strength for strength, accuracy in result.held_out_accuracy.items() if accuracy == best)
    return result.accuracy, linear_probe(*split, strengths=[first]).accuracy


def sgd(split: Split) -> tuple[float, float]:
    """Test accuracy of the rate that is chosen, and of the smallest that ties with it."""
    result = sgd_probe(*split)
    best = max(result.held_out_accuracy.values())
    first = min(rate for rate, accuracy in result.held_out_accuracy.items() if accuracy == best)
    return result.accuracy, sgd_probe(*split, rates=[first]).accuracy


def cross_validated(split: Split) -> float:
    """Test accuracy of scikit-learn's choice."""
    train_x, train_y, test_x, test_y = (part.numpy() for part in split)
    strengths = [1 / (strength * len(train_x)) for strength in DEFAULT_GRID]
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=strengths, cv=5, max_iter=5000))
    return model.fit(train_x, train_y).score(test_x, test_y)


def halves(load: Callable, seed: int) -> Split:
    """Training and test half of a data set."""
    x, y = load(return_X_y=True)
    parts = train_test_split(x, y, test_size=0.5, stratify=y, random_state=seed)
    train_x, test_x, train_y, test_y = map(torch.from_numpy, parts)
    return train_x, train_y, test_x, test_y


def main() -> None:
    """Print the table as Markdown."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--splits", type=int, default=20)
    splits = arguments.parse_args().splits
    warnings.filterwarnings("ignore", module="sklearn")
    print("| | `linear` | ties to the strongest | scikit-learn, 5 folds | `linear sgd` | ties to the smallest |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, load in SETS.items():
        columns: list[list[float]] = [[] for _ in range(5)]
        for seed in range(splits):
            split = halves(load, seed)
            for column, accuracy in zip(columns, (*linear(split), cross_validated(split), *sgd(split)), strict=True):
                column.append(accuracy)
        cells = (f"{100 * mean(column):.2f} ± {100 * stdev(column):.2f}" for column in columns)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
