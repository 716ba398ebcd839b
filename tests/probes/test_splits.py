import torch

from ssl_transfer.probes.splits import held_out_tenth, shuffled

HELD_OUT_OF_SEED_0 = [0, 8, 19, 26, 31, 51]


def test_held_out_rows_are_a_tenth_of_every_class_and_leave_some_of_each():
    y = torch.tensor([0] * 100 + [1] * 25 + [2] * 2 + [3])
    held_out = held_out_tenth(y, seed=0)
    assert [int(held_out[y == c].sum()) for c in range(4)] == [10, 2, 1, 0]


def test_held_out_rows_are_the_same_for_ever():
    """Raw Philox numbers: these rows must never change, on any machine or version."""
    y = torch.arange(60) % 3
    assert held_out_tenth(y, seed=0).nonzero()[:, 0].tolist() == HELD_OUT_OF_SEED_0
    assert held_out_tenth(y, seed=1).nonzero()[:, 0].tolist() != HELD_OUT_OF_SEED_0


def test_orders_are_the_same_for_ever():
    assert shuffled(8, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert shuffled(8, 0, 1).tolist() == [3, 7, 4, 2, 1, 6, 5, 0]
