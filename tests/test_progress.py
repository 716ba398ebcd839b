"""What a person watching is told, by a clock that the tests set."""

import io

import pytest
from rich.console import Console

from ssl_transfer import progress
from ssl_transfer.progress import Rounds, Stage
from ssl_transfer.training import progress as of_training
from ssl_transfer.training.progress import ProgressReport


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(of_training, "time", clock)
    return clock


@pytest.fixture
def console():
    return Console(file=io.StringIO(), markup=False, emoji=False, width=200)


def said(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_a_log_has_a_line_soon_and_then_now_and_then(clock, console):
    stage = Stage("work", console, 1000, unit="images")
    for second in range(1, 101):
        clock.now = second
        stage.advance(10)
    lines = said(console)
    assert lines[0] == "work  50/1,000 images  2 min left"
    assert [line.split()[1] for line in lines] == ["50/1,000", "350/1,000", "650/1,000", "950/1,000"]


def test_what_was_done_before_counts_for_nothing_in_the_time_left(clock, console):
    stage = Stage("work", console, 100, done=90)
    assert stage.seconds_left is None
    clock.now = 10
    stage.update(95)
    assert stage.seconds_left == pytest.approx(10)
    assert Stage("work", None, None).seconds_left is None


def test_a_terminal_has_a_bar_that_moves_with_the_first_step(clock):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    report = ProgressReport("train", terminal)
    report.begin(0, 40)
    report.moved(1)
    report.close()
    assert "1/40 steps" in terminal.file.getvalue()


def test_rounds_tell_the_time_that_is_left_of_all_once_one_is_over(clock, console):
    rounds = Rounds("scoring", console, 3)
    for name in ("teacher", "student"):
        rounds.begin(name)
        with rounds.stage("features", 100, "images") as stage:
            clock.now += 30
            stage.advance(100)
        with rounds.stage("kNN 20"):
            left = rounds.seconds_left
            clock.now += 10
        rounds.end()
    assert left == 10 + 40  # the second kNN, and all of the third model
    assert "scoring 1/3, teacher: features 30 s, kNN 20 10 s" in said(console)
    assert any("scoring 2/3, student: features" in line and "about 80 s left of all" in line for line in said(console))
    Rounds("scoring", None, 1).begin("silent")


def test_the_time_of_training_and_what_comes_after_is_told_once(clock, console):
    report = ProgressReport("train", console, lambda seconds: f", then {100 * seconds:.0f} s of scoring")
    report.begin(10, 110)
    for step in range(11, 60):
        clock.now += 0.5
        report.moved(step)
    told = [line for line in said(console) if "of training" in line]
    assert told == ["train: about 46 s of training, then 50 s of scoring"]
    assert said(console)[0] == "train: going on after step 10 of 110"


def test_losses_have_four_significant_digits(clock, console):
    report = ProgressReport("train", console)
    report.begin(0, 10)
    report.update(10, 1.0, 0.0000123456, 1234.0)
    assert said(console) == ["train  10/10 steps  epoch 1.0  loss 1.235e-05  1,234 images/s"]
