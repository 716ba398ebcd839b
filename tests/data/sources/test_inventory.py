import json

from ssl_transfer.data.sources.inventory import HIDDEN, Inventory, LeftOut, Tally


def tally(*reasons: str) -> Tally:
    found = Tally()
    for place, reason in enumerate(reasons):
        found.leave_out(reason, f"{place}.x")
    return found


def test_a_record_counts_by_reason_and_names_the_first():
    inventory = tally("b", *["a"] * 7, "c").inventory(90)
    assert inventory.taken == 90
    assert inventory.left_out[0] == LeftOut("a", 7, ("1.x", "2.x", "3.x", "4.x", "5.x"))
    assert [(part.reason, part.count) for part in inventory.left_out] == [("a", 7), ("b", 1), ("c", 1)]
    assert str(inventory) == "images taken: 90; left out: a: 7 (1.x, 2.x, 3.x, 4.x, 5.x, ...); b: 1 (0.x); c: 1 (8.x)"
    many = str(tally(*map(str, range(30))).inventory(0))
    assert many.count("(") == 12 and many.endswith("; for other reasons: 18")
    assert str(Inventory(3)) == "images taken: 3; left out: nothing"


def test_a_summary_is_json():
    summary = tally("a").inventory(2).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {"taken": 2, "left_out": [{"reason": "a", "count": 1, "first": ["0.x"]}]}


def test_images_that_are_left_out_later_are_taken_away():
    inventory = tally("a").inventory(5).without("broken", ["x.png", "y.png"])
    assert inventory == Inventory(3, (LeftOut("a", 1, ("0.x",)), LeftOut("broken", 2, ("x.png", "y.png"))))
    assert inventory.without("broken", []) == inventory


def test_hidden_files_alone_are_nothing_to_remark():
    assert not Inventory(5).remarkable and not tally(HIDDEN).inventory(5).remarkable
    assert tally(HIDDEN, "a").inventory(5).remarkable
