import json

from ssl_transfer.data.sources.intake import HIDDEN, Intake, LeftOut, Tally


def tally(*reasons: str) -> Tally:
    found = Tally()
    for place, reason in enumerate(reasons):
        found.leave_out(reason, f"{place}.x")
    return found


def test_a_record_counts_by_reason_and_names_the_first():
    intake = tally("b", *["a"] * 7, "c").intake(90)
    assert intake.taken == 90
    assert intake.left_out[0] == LeftOut("a", 7, ("1.x", "2.x", "3.x", "4.x", "5.x"))
    assert [(part.reason, part.count) for part in intake.left_out] == [("a", 7), ("b", 1), ("c", 1)]
    assert str(intake) == "images taken: 90; left out: a: 7 (1.x, 2.x, 3.x, 4.x, 5.x, ...); b: 1 (0.x); c: 1 (8.x)"
    many = str(tally(*map(str, range(30))).intake(0))
    assert many.count("(") == 12 and many.endswith("; for other reasons: 18")
    assert str(Intake(3)) == "images taken: 3; left out: nothing"


def test_a_summary_is_json():
    summary = tally("a").intake(2).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {"taken": 2, "left_out": [{"reason": "a", "count": 1, "first": ["0.x"]}]}


def test_images_that_are_left_out_later_are_taken_away():
    intake = tally("a").intake(5).without("broken", ["x.png", "y.png"])
    assert intake == Intake(3, (LeftOut("a", 1, ("0.x",)), LeftOut("broken", 2, ("x.png", "y.png"))))
    assert intake.without("broken", []) == intake


def test_hidden_files_alone_are_nothing_to_remark():
    assert not Intake(5).remarkable and not tally(HIDDEN).intake(5).remarkable
    assert tally(HIDDEN, "a").intake(5).remarkable
