"""Every key of every kind of score reaches the probe, or whatever else it names."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from torch import nn

from ssl_transfer import probes
from ssl_transfer.features import augmented
from ssl_transfer.models import ClassifierHead
from ssl_transfer.scores import KINDS
from ssl_transfer.scores.base import WatchedTraining
from ssl_transfer.scores.measuring import measure_all, needed_layers
from tests.scores.subjects import kinds, subject


class Called(NamedTuple):
    """Which probe was called, by which keyword arguments, and on augmented images of which preset."""

    probe: str
    settings: dict[str, Any]
    presets: list[str]


class Case(NamedTuple):
    """With ``key`` set to ``value``, ``look`` sees ``expected``, and not so without it."""

    kind: str
    key: str
    value: Any
    look: Callable[[list[Called]], Any]
    expected: Any
    beside: dict[str, Any] = {}


def setting(name: str) -> Callable[[list[Called]], Any]:
    return lambda calls: calls[0].settings[name]


def preset(calls: list[Called]) -> str:
    return calls[-1].presets[-1]  # of the call that was last


AUGMENTED = {"protocol": "augmented", "epochs": 1, "augment": "crop"}
CASES = [
    Case("knn", "k", [3], setting("k"), [3], {"k": [5]}),
    Case("knn", "temperature", 0.37, setting("temperature"), [0.37], {"k": [5]}),
    Case("knn", "temperature", [0.2, 0.37], setting("temperature"), [0.2, 0.37], {"k": [5]}),
    Case("knn", "metric", "euclidean", setting("metric"), "euclidean", {"k": [5], "weighted": False}),
    Case("knn", "weighted", False, setting("weighted"), False, {"k": [5]}),
    Case("linear_probe", "protocol", "sgd", lambda calls: calls[0].probe, "sgd_probe", {"epochs": 1}),
    Case("linear_probe", "epochs", 3, setting("epochs"), 3, {"protocol": "sgd"}),
    Case("linear_probe", "augment", "eval", preset, "eval", AUGMENTED),
    Case("linear_probe", "folds", True, len, 3),
    Case("attentive_probe", "epochs", 2, setting("epochs"), 2, {"epochs": 1}),
    Case("attentive_probe", "queries", 2, setting("queries"), 2, {"epochs": 1}),
    Case("few_shot", "labels_per_class", [2], setting("labels_per_class"), [2], {"labels_per_class": [1]}),
    Case("few_shot", "fractions", [0.1], setting("labels_per_class"), [1, 0.1], {"labels_per_class": [1]}),
    Case("few_shot", "draws", 3, setting("draws"), 3, {"labels_per_class": [1]}),
    Case("finetune", "fraction", 0.37, setting("fraction"), 0.37, {"epochs": 1}),
    Case("finetune", "epochs", 2, setting("epochs"), 2, {"epochs": 1}),
    Case("finetune", "batch_size", 8, setting("batch_size"), 8, {"epochs": 1}),
    Case("finetune", "augment", "eval", preset, "eval", {"epochs": 1}),
    Case("retrieval", "k", [1, 3], setting("k"), [1, 3]),
    Case("retrieval", "metric", "euclidean", setting("metric"), "euclidean"),
    Case("clustering", "metric", "euclidean", setting("metric"), "euclidean"),
    Case("agreement", "k", 3, setting("k"), 3),
    Case("classification", "bins", 7, setting("bins"), 7),
]
LAYERED = ("retrieval", "clustering", "agreement")
WATCHED = [
    ("monitor", "every", 2, "every", 8, {"every": 1}),
    ("monitor", "images", 37, "rows", 37, {"every": 1}),
    ("monitor", "k", 7, "k", 7, {"every": 1}),
]


@pytest.fixture
def calls(monkeypatch) -> list[Called]:
    found: list[Called] = []
    presets: list[str] = []

    def watch(name: str) -> None:
        probe = getattr(probes, name)

        def noting(*given: Any, **settings: Any) -> Any:
            found.append(Called(name, settings, presets))
            return probe(*given, **settings)

        monkeypatch.setattr(probes, name, noting)

    names = ("knn_accuracy", "linear_probe", "sgd_probe", "few_shot", "finetune", "retrieval", "clustering")
    for name in (*names, "agreement", "classification", "attentive_probe"):
        watch(name)
    augmentation = augmented.augmentation

    def noting_preset(preset: str, *given: Any, **settings: Any) -> Any:
        presets.append(preset)
        return augmentation(preset, *given, **settings)

    monkeypatch.setattr(augmented, "augmentation", noting_preset)
    return found


class Classifier(nn.Module):
    """A network with a classifier, whose logits are the features of the subject."""

    def __init__(self):
        super().__init__()
        self.head = ClassifierHead(16, num_classes=16)


def measure(kind: str, settings: dict[str, Any]) -> None:
    asked = kinds({"kind": kind, **settings})
    layers = {layer: subject("student (small)", 0, layer) for layer in needed_layers(asked)}
    if kind == "classification":
        layers = {layer: replace(features, network=Classifier()) for layer, features in layers.items()}
    measure_all(layers, asked, seed=3, teachers=[layers], main=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.key}")
def test_a_value_reaches_the_probe(calls, case):
    measure(case.kind, case.beside)
    without = case.look(list(calls))
    calls.clear()
    measure(case.kind, {**case.beside, case.key: case.value})
    assert case.look(calls) == case.expected != without


@pytest.mark.parametrize("kind", LAYERED)
def test_a_layer_decides_whose_features_are_scored(kind):
    assert list(needed_layers(kinds({"kind": kind}))) == ["features"]
    assert list(needed_layers(kinds({"kind": kind, "layer": "output"}))) == ["output"]


@pytest.mark.parametrize(("kind", "key", "value", "name", "expected", "beside"), WATCHED)
def test_a_value_reaches_what_watches_training(kind, key, value, name, expected, beside):
    train, test = subject("small", 0).images

    def look(settings: dict[str, Any]) -> Any:
        (asked,) = kinds({"kind": kind, **beside, **settings})
        watched = WatchedTraining(lambda: None, train, [], lambda: test, steps_per_epoch=4, seed=0)
        found = getattr(asked.watcher(watched), name)
        return len(found) if name == "rows" else found

    assert look({key: value}) == expected != look({})


def test_every_key_of_every_kind_has_a_case():
    cased = {(case.kind, case.key) for case in CASES} | {(kind, "layer") for kind in LAYERED}
    cased |= {(kind, key) for kind, key, *_ in WATCHED}
    cased |= {("best_on_test", key) for key in ("k", "every")}  # tests/scores/test_best_epoch.py
    names = {section.model_fields["kind"].default: section for section in KINDS}
    keys = {(kind, key) for kind, section in names.items() for key in section.model_fields if key != "kind"}
    assert keys - cased == set()
