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
    assert str(intake) == "90 images taken; left out: 7 a (1.x, 2.x, 3.x, 4.x, 5.x, ...), 1 b (0.x), 1 c (8.x)"
    many = str(tally(*map(str, range(30))).intake(0))
    assert many.count("(") == 12 and many.endswith(", and 18 for other reasons")
    assert str(Intake(3)) == "3 images taken; left out: nothing"


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
