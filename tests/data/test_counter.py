from math import isqrt

import pytest
import torch
from scipy import stats

from ssl_transfer.data.counter import NEGATIVES, ORDER, SUBSET, epoch_order, integers, philox, rows_at, uniform
from tests.reference import philox as reference

# Known answers published with the algorithm: Random123, tests/kat_vectors, lines "philox4x32 10".
KNOWN_ANSWERS = [
    ((0x00000000,) * 4, (0x00000000,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, words", KNOWN_ANSWERS)
def test_philox_gives_the_published_known_answers(counter, key, words):
    assert philox(torch.tensor(counter), key).tolist() == list(words)


def test_philox_equals_unbounded_integers_on_random_counters():
    counters = torch.randint(2**32, (200, 4), generator=torch.Generator().manual_seed(0))
    key = (0xDEADBEEF, 0xFFFFFFFE)
    assert philox(counters, key).tolist() == [list(reference.philox(tuple(row), key)) for row in counters.tolist()]


def test_philox_keeps_the_leading_shape():
    counters = torch.arange(24).view(2, 3, 4)
    torch.testing.assert_close(philox(counters, (1, 2))[1, 2], philox(counters[1, 2], (1, 2)))


def test_uniform_follows_the_documented_layout():
    seed, stream, epoch, image, view = 7 + (9 << 32), 3, 11, 2**31 + 5, 2
    drawn = uniform(seed, stream, epoch, torch.tensor([image]), view, 6)
    words = [word for block in (0, 1) for word in reference.philox((block, image, epoch, 3 * 2**16 + 2), (7, 9))]
    assert drawn.tolist() == [[(word >> 8) / 2**24 for word in words[:6]]]


def test_uniform_of_an_image_does_not_depend_on_the_batch_around_it():
    alone = uniform(5, 1, 3, torch.tensor([40]), 0, 9)
    together = uniform(5, 1, 3, torch.arange(100).flip(0), 0, 9)
    assert torch.equal(alone[0], together[59])


def test_uniform_is_uniform_and_its_draws_are_uncorrelated():
    drawn = uniform(0, 1, 0, torch.arange(20_000), 0, 8)
    assert 0 <= drawn.min() and drawn.max() < 1
    for column in drawn.T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    off_diagonal = torch.corrcoef(drawn.T) - torch.eye(8)
    assert off_diagonal.abs().max() < 4 / 20_000**0.5


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(seed=2**32),
        dict(stream=2),
        dict(epoch=1),
        dict(index=torch.arange(1, 65)),
        dict(view=1),
    ],
)
def test_uniform_changes_with_every_part_of_its_address(change):
    address = dict(seed=0, stream=1, epoch=0, index=torch.arange(64), view=0, draws=4)
    assert (uniform(**address) != uniform(**address | change)).float().mean() > 0.99


def test_epoch_order_is_a_permutation_and_changes_with_seed_and_epoch():
    order = epoch_order(0, 0, 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    for other in (epoch_order(1, 0, 1000), epoch_order(0, 1, 1000)):
        assert (order == other).float().mean() < 0.01


def test_epoch_order_sorts_64_bit_unsigned_words():
    words = [reference.philox((0, image, 4, 0), (3, 0)) for image in range(500)]
    expected = sorted(range(500), key=lambda image: words[image][0] << 32 | words[image][1])
    assert epoch_order(3, 4, 500).tolist() == expected


def test_epoch_order_visits_every_position_equally_often():
    positions = torch.stack([epoch_order(0, epoch, 8) for epoch in range(800)])
    counts = torch.stack([(positions == image).sum(0) for image in range(8)])
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3


@pytest.mark.parametrize("bad", [dict(seed=-1), dict(seed=2**64), dict(epoch=-1), dict(view=2**16)])
def test_an_address_out_of_range_is_refused(bad):
    address = dict(seed=0, stream=1, epoch=0, index=torch.arange(2), view=0, draws=4)
    with pytest.raises(ValueError, match="must lie in"):
        uniform(**address | bad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_bits_on_cpu_and_gpu():
    index = torch.arange(3000)
    assert torch.equal(uniform(1, 1, 2, index, 1, 7), uniform(1, 1, 2, index.cuda(), 1, 7).cpu())


def test_integers_are_the_high_part_of_a_word_times_their_number():
    index, below = torch.tensor([0, 5, 2**31]), 1442
    found = integers(7, NEGATIVES, 3, index, 6, below=below)
    for row, place in zip(found.tolist(), index.tolist(), strict=True):
        blocks = [reference.philox((block, place, 3, NEGATIVES << 16), (7, 0)) for block in range(2)]
        words = [word for block in blocks for word in block]
        assert row == [word * below >> 32 for word in words[:6]]
    many = integers(0, NEGATIVES, 0, torch.arange(1000), 100, below=10).flatten().bincount(minlength=10)
    assert len(many) == 10 and ((many - 10_000).abs() < 5 * 95).all()  # five standard deviations of a binomial


@pytest.mark.parametrize("below", [0, -1, 2**31])
def test_numbers_that_do_not_fit_are_refused(below):
    with pytest.raises(ValueError, match="must lie in"):
        integers(0, NEGATIVES, 0, torch.arange(3), 2, below=below)


def permutation(length, **drawn):
    return rows_at(torch.arange(length), length, **{"seed": 0, "stream": ORDER, "epoch": 0} | drawn)


def test_rows_at_all_places_are_a_permutation_of_any_length():
    for length in (*range(1, 40), 1000, 4095, 4096, 4097, 2**16 + 1, 99_999):
        assert torch.equal(permutation(length).sort().values, torch.arange(length)), length


def test_rows_at_some_places_are_those_of_the_whole_and_of_no_other_epoch_or_seed():
    whole = permutation(10_007)
    places = torch.tensor([9_999, 3, 3, 10_006, 0])
    assert torch.equal(rows_at(places, 10_007, seed=0, stream=ORDER, epoch=0), whole[places])
    for other in ({"seed": 1}, {"epoch": 1}, {"stream": SUBSET}):
        assert (permutation(10_007, **other) == whole).sum() < 10  # 1 is expected


def test_rows_at_is_the_network_of_its_description():
    """Written out again for one place at a time in Python's whole numbers."""
    length, seed, epoch = 1000, 5 + 2**40, 3
    high, low = 32, 32

    def drawn(half, turn):
        counter = torch.tensor([[turn, half, epoch, ORDER << 16 | 2**16 - 1]])
        first, second, *_ = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[0].tolist()
        return (first << 30) + (second >> 2)

    def send(place):
        left, right = divmod(place, low)
        for turn in range(0, 8, 2):
            left = (left + drawn(right, turn)) % high
            right = (right + drawn(left, turn + 1)) % low
        row = left * low + right
        return row if row < length else send(row)

    found = permutation(length, seed=seed, epoch=epoch)
    assert [send(place) for place in range(0, 1000, 83)] == found[::83].tolist()


def chi_square_is_likely(counts, expected):
    """Within four standard deviations of what chance gives."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.size - 1
    return abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("length", [24, 97])
def test_rows_are_uniform_at_every_place_and_pairs_are_uniform_too(length):
    epochs = 400
    orders = torch.stack([permutation(length, epoch=epoch) for epoch in range(epochs)])
    for place in (0, 1, length // 2, length - 1):
        counts = orders[:, place].bincount(minlength=length).numpy()
        assert chi_square_is_likely(counts, epochs / length), place
    # Of two places, beside each other, in one row of the network and in one column: all differences alike.
    for one, other in ((0, 1), (3, length // 2), (0, isqrt(length - 1) + 1)):
        counts = ((orders[:, one] - orders[:, other]) % length).bincount(minlength=length)[1:].numpy()
        assert chi_square_is_likely(counts, epochs / (length - 1)), (one, other)
    # And between epochs: how many rows stay at their place is 1 on average, with variance 1.
    stay = (orders[1:] == orders[:-1]).sum(1).double()
    assert abs(stay.mean() - 1) < 4 / epochs**0.5 and 0.7 < stay.var() < 1.4


def test_neighboring_places_of_many_rows_are_not_neighbors():
    length = 10**9
    rows = rows_at(torch.arange(123_456_789, 123_456_789 + 4096), length, seed=7, stream=ORDER, epoch=2)
    assert rows.unique().numel() == 4096 and rows.min() >= 0 and rows.max() < length
    apart = rows.diff().abs().double() / length
    assert abs(apart.mean() - 1 / 3) < 4 * (1 / 18 / 4096) ** 0.5  # that of two numbers drawn from [0, 1)


def test_a_length_that_no_place_has_is_refused():
    for length in (0, 2**62):
        with pytest.raises(ValueError, match="must lie in"):
            rows_at(torch.arange(1), length, seed=0, stream=ORDER, epoch=0)
