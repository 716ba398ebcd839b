"""What a recipe's kinds of scores become: columns, and protocols."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_transfer import config
from ssl_transfer.errors import UserError
from ssl_transfer.features.model_features import ModelFeatures
from ssl_transfer.probes import Features, linear_probe
from ssl_transfer.scores.base import Effort, Measuring
from ssl_transfer.scores.finetune import Finetune
from ssl_transfer.scores.linear_probe import LinearProbe
from ssl_transfer.scores.measuring import measure_all, needed_layers
from tests.probes.synthetic import clouds
from tests.scores.subjects import EVERY_KIND, FOUND, kinds, scores_of, subject


def test_every_kind_fills_the_columns_it_announces(every_score):
    asked, scores = every_score
    announced = [column for kind in asked for column in kind.columns()]
    assert [score.metric for score in scores if score.model == "student (small)"] == announced
    assert all(0 <= score.value <= 1 or score.metric == "Spearman" for score in scores)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fine_tuning_is_in_the_precision_of_the_features_and_says_so(precision):
    table = replace(subject("student (small)", 0), precision=precision)
    (found,) = Finetune(fraction=0.2, epochs=1, augment="eval").measure(table, Measuring())
    assert found.protocol["precision"] == precision


def test_a_column_is_one_protocol(every_score):
    """The names differ wherever the protocols do, and models in a column were taken by the same one."""
    _, scores = every_score
    protocols: dict[str, set[str]] = {}
    for score in scores:
        own = {key: value for key, value in score.protocol.items() if key not in FOUND}
        protocols.setdefault(score.metric, set()).add(json.dumps(own, sort_keys=True))
    assert all(len(found) == 1 for found in protocols.values()), protocols
    assert len({next(iter(found)) for found in protocols.values()}) >= len(EVERY_KIND) - 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([{"kind": "knn"}, {"kind": "knn", "k": [20]}], "column 'kNN 20'"),
        ([{"kind": "linear_probe"}, {"kind": "linear_probe", "epochs": 3}], "column 'linear'"),
        ([{"kind": "monitor", "every": 1}, {"kind": "monitor", "every": 2}], "two entries are of the kind monitor"),
    ],
)
def test_two_entries_of_one_column_are_refused_before_anything_runs(given, words):
    digits = Path(__file__).parents[2] / "recipes" / "digits" / "simclr.yaml"
    with pytest.raises(UserError, match=words):
        config.load(digits, [f"score={json.dumps(given)}"])


def test_each_number_carries_what_it_was_taken_by(every_score):
    _, scores = every_score
    by_name = {score.metric: score for score in scores if score.model == "student (small)"}
    assert by_name["kNN 5"].protocol.items() >= {"k": 5, "temperature": 0.1, "metric": "cosine"}.items()
    assert by_name["kNN 5 majority"].protocol["temperature"] is None
    linear = by_name["linear"].protocol
    assert linear["strength"] in linear["held_out_accuracy"] and linear["n_held_out"] == 12
    assert by_name["linear sgd 3 ep"].protocol["rate"] in by_name["linear sgd 3 ep"].protocol["held_out_accuracy"]
    assert by_name["linear augmented 2 ep"].protocol["augment"] == "eval"
    assert by_name["fine-tuned 20 % 2 ep"].protocol["batch_size"] == 24  # the labeled images are not more
    assert by_name["fine-tuned 20 % 2 ep batch 8"].protocol["batch_size"] == 8
    assert (few := by_name["10 % (3 draws)"]).protocol["labels"] == 12 and (few.n, few.sd is None) == (3, False)
    assert by_name["R@1 L2 output"].protocol.items() >= {"metric": "euclidean", "n_queries": 60}.items()
    assert by_name["overlap 5"].protocol.items() >= {"teacher": "teacher (big)", "k": 5}.items()


def test_a_linear_probe_leaves_the_classes_of_the_test_images_that_its_score_counts():
    model = subject("small", 0)
    asked = kinds(*(kind for kind in EVERY_KIND if kind["kind"] == "linear_probe"))
    predicted: dict[str, torch.Tensor] = {}
    scores = measure_all({"features": model}, asked, seed=0, main=True, predicted=predicted)
    accuracy = {score.metric: score.value for score in scores}
    assert predicted.keys() == {column for column in accuracy if "per fold" not in column}  # ten folds have ten answers
    for column, given in predicted.items():
        assert (given == model.features.test_y).double().mean().item() == accuracy[column]


@pytest.mark.parametrize("kind", kinds(*EVERY_KIND), ids=lambda kind: next(iter(kind.columns()), kind.kind))
def test_measures_of_more_images_are_expected_to_take_longer(kind):
    few = Effort(n_train=1000, n_test=100, classes=5, width=64, multiply=1e-10, image=1e-3)
    more = replace(few, n_train=2000, n_test=200)
    if kind.during_training:  # which is in the time of training
        assert kind.seconds(few) == 0
    else:
        assert kind.seconds(more) > kind.seconds(few) > 0


def test_augmenting_by_nothing_is_the_probe_on_the_features_themselves(every_score):
    _, scores = every_score
    by_name = {score.metric: score.value for score in scores if score.model == "student (small)"}
    assert by_name["linear augmented 2 ep"] == by_name["linear sgd 2 ep"]
    assert by_name["linear augmented 2 ep per fold"] == by_name["linear sgd 2 ep per fold"]


def test_a_probe_per_fold_is_the_probe_of_each_fold_alone_and_their_mean():
    train, test = subject("small", 0).images
    (train_x, train_y), (test_x, test_y) = clouds(120, 16, 4, spread=2.0), clouds(60, 16, 4, spread=2.0, seed=1)
    given = ModelFeatures("small", Features(train_x, train_y, test_x, test_y), {"n_train": 120}, images=(train, test))
    (found,) = LinearProbe(folds=True).measure(given, Measuring())
    alone = [linear_probe(train_x[first::3], train_y[first::3], test_x, test_y) for first in range(3)]
    accuracies = [result.accuracy for result in alone]
    assert len(set(accuracies)) > 1
    assert (found.metric, found.n) == ("linear per fold", 3)
    assert (found.value, found.sd) == pytest.approx((statistics.mean(accuracies), statistics.stdev(accuracies)))
    assert found.protocol.items() >= {"folds": 3, "n_train": 40, "n_test": 60, "protocol": "lbfgs", "seed": 0}.items()
    assert found.protocol["strength"] in ([result.strength for result in alone], alone[0].strength)


def test_folds_are_those_of_a_data_set_and_no_others():
    with pytest.raises(ValueError, match="x.npz is a table of features, which has no predefined folds"):
        LinearProbe(folds=True).measure(replace(subject("x.npz", 0), images=None), Measuring())
    train, test = subject("small", 0).images
    with pytest.raises(ValueError, match="clouds train has no predefined folds, .*leave out folds"):
        without = replace(subject("small", 0), images=(replace(train, folds=None), test))
        LinearProbe(folds=True).measure(without, Measuring())


def test_features_of_the_training_images_are_needed_by_what_learns_from_them_alone():
    assert needed_layers(kinds({"kind": "classification"}, {"kind": "retrieval"})) == {
        "output": False,
        "features": False,
    }
    assert needed_layers(kinds({"kind": "retrieval"}, {"kind": "knn"}, {"kind": "clustering"})) == {"features": True}
    assert needed_layers(kinds({"kind": "monitor", "every": 1})) == {}
    others = [kind for kind in EVERY_KIND if kind["kind"] not in ("knn", "linear_probe", "few_shot")]
    asked = kinds(*others)
    empty = {layer: subject("small", 0, layer) for layer in needed_layers(asked)}
    without = {
        layer: replace(
            full, features=replace(full.features, train_x=torch.empty(0, 16), train_y=full.features.train_y[:0])
        )
        for layer, full in empty.items()
    }
    found = measure_all(without, asked, seed=0, teachers=[without], main=True)
    assert found == measure_all(empty, asked, seed=0, teachers=[empty], main=True)


def test_a_model_without_a_teacher_has_no_agreement():
    assert scores_of("trained (small)", 0, kinds({"kind": "agreement"}), teacher=None) == []


def test_other_processes_join_in_what_is_done_together_and_report_nothing():
    asked = kinds(*EVERY_KIND)
    subjects = {layer: subject("student", 0, layer) for layer in needed_layers(asked)}
    assert measure_all(subjects, asked, seed=0, main=False) == []


def test_a_table_of_features_cannot_be_augmented_and_says_so():
    with pytest.raises(ValueError, match=r"x.npz is a table of features; this protocol needs the network"):
        Finetune(augment="eval").measure(replace(subject("x.npz", 0), network=None), Measuring())
