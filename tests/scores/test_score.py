"""Scores in a file, and beside their teacher's."""

import json

import pytest

from ssl_transfer import probes
from ssl_transfer.scores.score import Score, read_scores, retention, write_scores
from tests.scores.subjects import EVERY_KIND, kinds, scores_of


def test_retention_is_of_common_columns_with_a_teacher_above_zero():
    scores = [
        Score("teacher (a)", "kNN 20", 0.8, {}),
        Score("teacher (a)", "AMI", 0.0, {}),
        Score("student (b)", "kNN 20", 0.6, {}),
        Score("student (b)", "AMI", 0.1, {}),
        Score("student (b)", "CKA", 0.9, {}),
    ]
    assert retention(scores, "student (b)", "teacher (a)") == {"kNN 20": probes.retention(0.6, 0.8)}


def test_scores_are_written_with_the_share_kept_and_read_back(tmp_path):
    scores = [
        *scores_of("teacher (big)", 5, kinds(EVERY_KIND[0])),
        *scores_of("student (small)", 0, kinds(EVERY_KIND[0])),
    ]
    write_scores(tmp_path / "scores.json", scores, {"asked": ["this"]})
    assert read_scores(tmp_path / "scores.json") == scores
    assert read_scores(tmp_path / "nothing.json") is None
    kept = json.loads((tmp_path / "scores.json").read_text())["retention"]
    assert kept["kNN 1"] == pytest.approx(scores[2].value / scores[0].value)
