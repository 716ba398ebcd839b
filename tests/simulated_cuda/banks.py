"""Scores of features that are mapped, so on the CPU, with labels on a GPU; run as a program, on the pretended one."""

import json

import torch

from ssl_transfer.features.model_features import ModelFeatures
from ssl_transfer.probes import Features
from ssl_transfer.scores.base import Measuring
from ssl_transfer.scores.knn import KNN
from ssl_transfer.scores.linear_probe import LinearProbe
from ssl_transfer.scores.retrieval import Retrieval
from tests.probes.synthetic import clouds
from tests.simulated_cuda.device import CUDA, placing, pretended_gpu

KINDS = (
    KNN(k=(5,)),
    KNN(k=(5,), metric="euclidean", weighted=False),
    Retrieval(k=(1,)),
    LinearProbe(protocol="sgd", epochs=1),
)


def scores_on(device: torch.device | str) -> dict[str, float]:
    x, y = clouds(600, 12, 4, spread=2.0, seed=0)
    features = Features(x[:400].clone(), y[:400].to(device), x[400:].clone(), y[400:].to(device))
    table = ModelFeatures("numbers", features, {"precision": "float32"})
    return {score.metric: score.value for kind in KINDS for score in kind.measure(table, Measuring())}


if __name__ == "__main__":
    with pretended_gpu(), placing():
        print(json.dumps(scores_on(CUDA)))
