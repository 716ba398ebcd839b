"""What a recipe's kinds of scores become: columns, protocols, tables."""

import io
import json

import pytest
import torch
from pydantic import TypeAdapter
from rich.console import Console

from ssl_transfer import config, measures
from ssl_transfer.config.scores import Scores
from ssl_transfer.data import Images
from ssl_transfer.measures import Score, Subject
from ssl_transfer.probes import Features, retention
from ssl_transfer.scoring import layers, print_scores, read_scores, score_subject, write_scores
from tests.probes.synthetic import clouds

EVERY_KIND = [
    {"kind": "knn", "k": [1, 5]},
    {"kind": "knn", "k": [5], "weighted": False},
    {"kind": "knn", "k": [5], "temperature": 0.07},
    {"kind": "linear_probe"},
    {"kind": "linear_probe", "protocol": "sgd", "epochs": 2},
    {"kind": "linear_probe", "protocol": "sgd", "epochs": 3},
    {"kind": "linear_probe", "protocol": "augmented", "epochs": 2, "augment": "eval"},
    {"kind": "few_shot", "labels_per_class": [1, 5], "fractions": [0.1], "draws": 3},
    {"kind": "finetune", "fraction": 0.2, "epochs": 2, "augment": "eval"},
    {"kind": "retrieval", "k": [1]},
    {"kind": "retrieval", "k": [1], "metric": "euclidean", "layer": "output"},
    {"kind": "clustering"},
    {"kind": "agreement", "k": 5},
    {"kind": "monitor", "every": 1},
]
# What each model, split or draw decides for itself; everything else is the protocol.
FOUND = {
    *("strength", "rate", "held_out_accuracy", "at_grid_edge", "converged", "labels", "width", "weights"),
    *("fingerprints", "preprocessing"),
}


def kinds(*given: dict) -> list[config.Score]:
    return TypeAdapter(Scores).validate_python(list(given))


def subject(name: str, seed: int, layer: str = "features") -> Subject:
    """Sixteen features of small images that are those features, so a network exists that gives them."""
    splits = []
    for split, n in (("train", 120), ("test", 60)):
        x, y = clouds(n, 16, 4, spread=1.0, seed=seed + (split == "test"))
        pixels = (((x - x.min()) / (x.max() - x.min())) * 255).byte().view(n, 1, 4, 4)
        splits.append(Images(pixels, y, 4, "clouds", split, (0.5,), (0.5,)))
    x = [images.pixels.flatten(1).float() / 255 for images in splits]
    features = Features(x[0], splits[0].labels, x[1], splits[1].labels)
    protocol = {"layer": layer, "n_train": 120, "n_test": 60}
    return Subject(name, features, protocol, layer, torch.nn.Flatten(), (splits[0], splits[1]))


def scores_of(name: str, seed: int, asked: list[config.Score], teacher: str | None = "teacher (big)") -> list[Score]:
    subjects = {layer: subject(name, seed, layer) for layer in layers(asked)}
    taught = {layer: subject(teacher, 5, layer) for layer in layers(asked)} if teacher else None
    return score_subject(subjects, asked, seed=0, teacher=taught, main=True)


@pytest.fixture(scope="module")
def every_score():
    asked = kinds(*EVERY_KIND)
    return asked, [*scores_of("student (small)", 0, asked), *scores_of("untrained (small)", 3, asked)]


def test_every_kind_fills_the_columns_it_announces(every_score):
    asked, scores = every_score
    announced = [column for kind in asked for column in kind.columns()]
    assert [score.metric for score in scores if score.model == "student (small)"] == announced
    assert all(0 <= score.value <= 1 or score.metric == "Spearman" for score in scores)


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
    with pytest.raises(ValueError, match=words):
        kinds(*given)


def test_each_number_carries_what_it_was_taken_by(every_score):
    _, scores = every_score
    by_name = {score.metric: score for score in scores if score.model == "student (small)"}
    assert by_name["kNN 5"].protocol.items() >= {"k": 5, "temperature": 0.1, "metric": "cosine"}.items()
    assert by_name["kNN 5 majority"].protocol["temperature"] is None
    linear = by_name["linear"].protocol
    assert linear["strength"] in linear["held_out_accuracy"] and linear["n_held_out"] == 12
    assert by_name["linear sgd 3 ep"].protocol["rate"] in by_name["linear sgd 3 ep"].protocol["held_out_accuracy"]
    assert by_name["linear augmented 2 ep"].protocol["augment"] == "eval"
    assert (few := by_name["10 % (3 draws)"]).protocol["labels"] == 12 and (few.n, few.sd is None) == (3, False)
    assert by_name["R@1 L2 output"].protocol.items() >= {"metric": "euclidean", "n_queries": 60}.items()
    assert by_name["overlap 5"].protocol.items() >= {"teacher": "teacher (big)", "k": 5}.items()


def test_augmenting_by_nothing_is_the_probe_on_the_features_themselves(every_score):
    _, scores = every_score
    by_name = {score.metric: score.value for score in scores if score.model == "student (small)"}
    assert by_name["linear augmented 2 ep"] == by_name["linear sgd 2 ep"]


def test_a_model_without_a_teacher_has_no_agreement():
    assert scores_of("trained (small)", 0, kinds({"kind": "agreement"}), teacher=None) == []


def test_other_processes_join_in_what_is_done_together_and_report_nothing():
    asked = kinds(*EVERY_KIND)
    subjects = {layer: subject("student", 0, layer) for layer in layers(asked)}
    assert score_subject(subjects, asked, seed=0, teacher=None, main=False) == []


def test_a_table_of_features_cannot_be_augmented_and_says_so():
    from dataclasses import replace

    with pytest.raises(ValueError, match=r"x.npz is a table of features; this protocol needs the network"):
        measures.finetune(replace(subject("x.npz", 0), network=None), augment="eval")


def test_retention_is_of_common_columns_with_a_teacher_above_zero():
    scores = [
        Score("teacher (a)", "kNN 20", 0.8, {}),
        Score("teacher (a)", "AMI", 0.0, {}),
        Score("student (b)", "kNN 20", 0.6, {}),
        Score("student (b)", "AMI", 0.1, {}),
        Score("student (b)", "CKA", 0.9, {}),
    ]
    assert measures.retention(scores, "student (b)", "teacher (a)") == {"kNN 20": retention(0.6, 0.8)}


def test_scores_are_written_with_the_share_kept_and_read_back(tmp_path):
    scores = [
        *scores_of("teacher (big)", 5, kinds(EVERY_KIND[0])),
        *scores_of("student (small)", 0, kinds(EVERY_KIND[0])),
    ]
    write_scores(tmp_path / "scores.json", scores, {"asked": ["this"]})
    assert read_scores(tmp_path / "scores.json", asked=["this"]) == scores
    assert read_scores(tmp_path / "scores.json", asked=["that"]) is None
    kept = json.loads((tmp_path / "scores.json").read_text())["retention"]
    assert kept["kNN 1"] == pytest.approx(scores[2].value / scores[0].value)


def test_a_table_of_many_columns_fits_80_characters_and_loses_none(every_score):
    _, scores = every_score
    out = io.StringIO()
    print_scores(scores, "clouds", Console(file=out, width=80))
    lines = out.getvalue().splitlines()[1:]
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in out.getvalue()
    assert all(score.metric in out.getvalue() for score in scores)
