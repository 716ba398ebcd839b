"""Small subjects of known features, and every kind of score that a recipe may ask for."""

from typing import get_args

import torch
from pydantic import TypeAdapter

from ssl_transfer.catalog.roles import Role
from ssl_transfer.data import Images
from ssl_transfer.features.model_features import ModelFeatures
from ssl_transfer.probes import Features
from ssl_transfer.scores import Scores
from ssl_transfer.scores.base import ScoreSection
from ssl_transfer.scores.measuring import measure_all, needed_layers
from ssl_transfer.scores.score import Score
from tests.probes.synthetic import clouds

EVERY_KIND = [
    {"kind": "knn", "k": [1, 5]},
    {"kind": "knn", "k": [5], "weighted": False},
    {"kind": "knn", "k": [5], "temperature": 0.07},
    {"kind": "linear_probe"},
    {"kind": "linear_probe", "protocol": "kornblith"},
    {"kind": "attentive_probe", "epochs": 1},
    {"kind": "attentive_probe", "epochs": 1, "queries": 2},
    {"kind": "linear_probe", "protocol": "sgd", "epochs": 2},
    {"kind": "linear_probe", "protocol": "sgd", "epochs": 3},
    {"kind": "linear_probe", "protocol": "augmented", "epochs": 2, "augment": "eval"},
    {"kind": "linear_probe", "folds": True},
    {"kind": "linear_probe", "protocol": "sgd", "epochs": 2, "folds": True},
    {"kind": "linear_probe", "protocol": "augmented", "epochs": 2, "augment": "eval", "folds": True},
    {"kind": "few_shot", "labels_per_class": [1, 5], "fractions": [0.1], "draws": 3},
    {"kind": "finetune", "fraction": 0.2, "epochs": 2, "augment": "eval"},
    {"kind": "finetune", "fraction": 0.2, "epochs": 2, "batch_size": 8, "augment": "eval"},
    {"kind": "retrieval", "k": [1]},
    {"kind": "retrieval", "k": [1], "metric": "euclidean", "layer": "output"},
    {"kind": "clustering"},
    {"kind": "agreement", "k": 5},
    {"kind": "monitor", "every": 1},
]
# What each model, split or draw decides for itself; everything else is the protocol.
FOUND = {
    *(
        "strength",
        "penalty",
        "rate",
        "held_out",
        "held_out_accuracy",
        "at_grid_edge",
        "converged",
        "labels",
        "width",
        "weights",
    ),
    *("fingerprints", "preprocessing"),
}


class Tokens(torch.nn.Flatten):
    """A network that gives the pixels, and in its map four places of them."""

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images.reshape(-1, 4, 2, 2)]


def kinds(*given: dict) -> list[ScoreSection]:
    return TypeAdapter(Scores).validate_python(list(given))


def subject(name: str, seed: int, layer: str = "features", device: str = "cpu") -> ModelFeatures:
    """Sixteen features of small images that are those features, so a network exists that gives them.

    The training images are in three folds, of which none is a row of neighbors.
    """
    splits = []
    for split, n in (("train", 120), ("test", 60)):
        x, y = clouds(n, 16, 4, spread=2.0, seed=seed + (split == "test"))
        pixels = ((x + 4) * 255 / 14).clamp(0, 255).byte().view(n, 1, 4, 4)
        folds = tuple(torch.arange(120).view(40, 3).T) if split == "train" else None
        splits.append(Images(pixels, y, 4, "clouds", split, (0.5,), (0.5,), folds=folds).to(device))
    x = [images.pixels.flatten(1).float() / 255 for images in splits]
    features = Features(x[0], splits[0].labels, x[1], splits[1].labels)
    protocol = {"layer": layer, "n_train": 120, "n_test": 60}
    role = name.partition(" (")[0]
    role = role if role in get_args(Role) else "other"
    return ModelFeatures(name, features, protocol, role, layer, Tokens(), (splits[0], splits[1]))


def scores_of(
    name: str, seed: int, asked: list[ScoreSection], teacher: str | None = "teacher (big)", device: str = "cpu"
) -> list[Score]:
    subjects = {layer: subject(name, seed, layer, device) for layer in needed_layers(asked)}
    taught = [{layer: subject(teacher, 5, layer, device) for layer in needed_layers(asked)}] if teacher else []
    return measure_all(subjects, asked, seed=0, teachers=taught, main=True)
