"""Ctrl-C in the midst of a measure, whichever it is, ends the program in one sentence and leaves nothing running."""

import multiprocessing
import os
import signal
import threading

import pytest

from ssl_transfer.program import ends_in_a_sentence
from ssl_transfer.scores.measuring import measure_all, needed_layers
from tests.scores.subjects import EVERY_KIND, kinds, subject

MEASURED = [kind for kind in kinds(*EVERY_KIND) if not kind.during_training]


@pytest.mark.parametrize("kind", MEASURED, ids=lambda kind: kind.columns()[0])
def test_an_interrupt_in_a_measure_is_one_sentence(kind, capsys):
    subjects = {layer: subject("student (small)", 0, layer) for layer in needed_layers([kind])}
    before = threading.active_count()
    begun = threading.Event()

    def interrupt() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(SystemExit) as ended, ends_in_a_sentence("program"):
        begun.set()
        while True:  # until the signal arrives, wherever that is
            measure_all(subjects, [kind], seed=0, teachers=[subjects], main=True)
    waiting.join()
    assert ended.value.code == 130
    assert capsys.readouterr().err == (
        "program: stopped; what was finished is kept, and the same command goes on from there\n"
    )
    assert threading.active_count() <= before and not multiprocessing.active_children()
