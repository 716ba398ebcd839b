"""Scores in a file, and beside their teacher's."""

import json

import pytest
import torch

from ssl_transfer import probes, runs
from ssl_transfer.errors import UserError
from ssl_transfer.features.model_features import ModelFeatures
from ssl_transfer.scores.base import score
from ssl_transfer.scores.score import Score, ScoreTable
from tests.scores.subjects import EVERY_KIND, kinds, scores_of


def test_what_is_kept_is_of_common_columns_with_a_teacher_above_zero():
    teacher, student = ("teacher (a)", "teacher"), ("student (b)", "student")
    scores = [
        Score(*teacher, "kNN 20", 0.8, {}),
        Score(*teacher, "AMI", 0.0, {}),
        Score(*teacher, "ECE", 0.1, {}),
        Score(*student, "kNN 20", 0.6, {}),
        Score(*student, "AMI", 0.1, {}),
        Score(*student, "ECE", 0.2, {}),
        Score(*student, "CKA", 0.9, {}),
    ]
    assert ScoreTable(scores).kept == {"teacher": {"kNN 20": probes.retention(0.6, 0.8)}}
    assert ScoreTable(scores[3:]).kept == {}


def test_a_table_has_a_cell_for_every_model_and_metric():
    scores = [Score("a", "other", "R@1", 0.5, {}), Score("b", "other", "NMI", 0.25, {}, sd=0.125, n=3)]
    table = ScoreTable(scores)
    assert (table.models, table.metrics) == (["a", "b"], ["R@1", "NMI"])
    assert [table.row(model) for model in table.models] == [[scores[0], None], [None, scores[1]]]
    assert (scores[0].percent, scores[1].percent) == ("50.0", "25.0 ± 12.5")


def test_a_number_that_is_no_fraction_is_not_shown_in_percent():
    x, y = torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    features = ModelFeatures("student", probes.Features(x, y, x, y), {})
    assert score(features, "ARI", -0.25, {}).percent == "-25.0"
    with pytest.raises(ValueError, match="milliseconds of student is 3.5, and a score is a fraction.*the protocol"):
        score(features, "milliseconds", 3.5, {})


def test_scores_are_written_with_the_share_kept_and_read_back(tmp_path):
    scores = [
        *scores_of("teacher (big)", 5, kinds(EVERY_KIND[0])),
        *scores_of("student (small)", 0, kinds(EVERY_KIND[0])),
    ]
    runs.write_scores(tmp_path, scores, {"asked": ["this"]})
    found = runs.read_scores(tmp_path)
    assert found.scores == scores and found.about == {"asked": ["this"]}
    assert runs.read_scores(tmp_path / "nowhere") is None
    kept = json.loads((tmp_path / "scores.json").read_text())["retention"]
    assert kept["kNN 1"] == pytest.approx(scores[2].value / scores[0].value)


def test_scores_of_earlier_versions_are_read_with_the_role_that_their_names_tell(tmp_path):
    models = {"teacher (tiny_convnet)": "teacher", "student (a (b))": "student", "raw pixels": "raw pixels"}
    rest = {"metric": "linear", "value": 0.5, "protocol": {}, "sd": None, "n": None}
    old = [{"model": model, **rest} for model in models]
    (tmp_path / "scores.json").write_text(json.dumps({"scores": old, "date": "then"}))
    found = runs.read_scores(tmp_path)
    assert {score.model: score.role for score in found.scores} == models and found.about == {"date": "then"}


def test_damaged_scores_are_one_sentence(tmp_path):
    for content in ("{", "[]", '{"scores": 3}', '{"scores": [{"model": "a"}]}'):
        (tmp_path / "scores.json").write_text(content)
        with pytest.raises(UserError, match=r"scores.json is damaged \(.*\); write it again with ssl-transfer score"):
            runs.read_scores(tmp_path)
