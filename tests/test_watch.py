"""Who counts up in the store is there, who is done is not missed, and who is silent for long is gone."""

from unittest.mock import Mock

import pytest
import torch.distributed as dist

from ssl_transfer import watch


class Looks:
    """In place of the event between two looks of a watch: no time passes, and ``between`` is what others do then."""

    def __init__(self, between, many=5 * watch._SILENT):
        self.between, self.left = between, many

    def is_set(self):
        return self.left <= 0

    def set(self):
        self.left = 0

    def wait(self, seconds):
        self.left -= 1
        self.between(self.left)


def watched_with(store, own, other, between):
    """What a process says that looks at another."""
    said = []
    looking = watch._Watch(store, own, [other], said.append)
    looking.over = Looks(between)
    looking.beat()
    return said


@pytest.mark.parametrize(("every", "gone"), [(1, False), (watch._SILENT, False), (watch._SILENT + 1, True)])
def test_who_counts_within_twelve_looks_is_not_gone(every, gone):
    store = dist.HashStore()
    store.set(watch._host(1), "elsewhere")
    store.add(watch._beat(1), 1)
    said = watched_with(store, 0, 1, lambda left: left % every or store.add(watch._beat(1), 1))
    assert len(said) == gone and (int(store.get(watch._beat(0))) == 5 * watch._SILENT or gone)
    if gone:
        assert "1 of the processes of this run, on elsewhere, have not been heard of for 36 seconds" in said[0]
        assert watched_with(store, 1, 0, lambda left: store.add(watch._beat(0), 1)) == said  # all others end, too


def test_who_is_done_is_not_gone():
    store = dist.HashStore()
    watch._Watch(store, 1, [0], print).leave()
    assert watched_with(store, 0, 1, lambda left: None) == []


def test_a_store_that_does_not_answer_is_noticed_by_the_other_thread(monkeypatch):
    monkeypatch.setattr(watch, "_TICK", 0.001)
    said = []
    stuck = watch._Watch(store=Mock(spec=dist.Store), own=1, watched=[0], end=said.append)
    stuck.look()  # without a thread that comes round
    assert len(said) == 1 and "the machine of the main process has not answered" in said[0]
