import io
from dataclasses import replace

from rich.console import Console

from ssl_transfer.report.terminal import print_scores
from ssl_transfer.scores.score import Score, ScoreTable


def test_a_table_of_many_columns_fits_80_characters_and_loses_none(every_score):
    _, scores = every_score
    out = io.StringIO()
    print_scores(ScoreTable(scores), "clouds", Console(file=out, width=80))
    lines = out.getvalue().splitlines()[1:]
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "…" not in out.getvalue()
    assert all(score.metric in out.getvalue() for score in scores)


def test_the_caption_says_what_a_deviation_is_over(every_score):
    _, scores = every_score
    out = io.StringIO()
    print_scores(ScoreTable(scores), "clouds", Console(file=out, width=200))
    caption = "clouds: in % on 60 test images, 120 training images; ± sd over 3 folds or 3 draws of labels"
    assert out.getvalue().splitlines()[0] == caption


def test_the_caption_says_which_images_were_held_out(every_score):
    _, scores = every_score
    out = io.StringIO()
    held_out = {"test_split": "held out of train"}
    held = ScoreTable([replace(s, protocol=s.protocol | held_out) for s in scores])
    print_scores(held, "x", Console(file=out, width=200))
    assert out.getvalue().startswith("x: in % on 60 test images (held out of train), 120 training images")


def test_each_teachers_share_is_a_row_of_the_tables_that_have_it():
    scores = [
        Score(model, role, metric, value, {})
        for model, role, values in (
            ("teacher 1 (a)", "teacher", {"kNN 20": 0.8, "linear": 0.5}),
            ("teacher 2 (b)", "teacher", {"kNN 20": 0.4}),
            ("student (c)", "student", {"kNN 20": 0.6, "linear": 0.6, "CKA " + 50 * "x": 0.7}),
        )
        for metric, value in values.items()
    ]
    out = io.StringIO()
    print_scores(ScoreTable(scores), "two", Console(file=out, width=80))
    rows = [line.split() for line in out.getvalue().splitlines()]
    assert [row for row in rows if row[:2] == ["student", "/"]] == [
        ["student", "/", "teacher", "1", "75", "%", "120", "%"],
        ["student", "/", "teacher", "2", "150", "%"],
    ]


def test_no_scores_are_said_to_be_none():
    out = io.StringIO()
    print_scores(ScoreTable([]), "clouds", Console(file=out, width=80))
    assert "clouds: nothing that was asked for can be measured of these models" in out.getvalue()
