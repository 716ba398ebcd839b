"""Random numbers as pure functions of where they are used, so nothing random has a state.

Philox 4x32-10 is a keyed bijection of 128-bit counters: the same key and counter give the same four 32-bit words
on every device, in every order, in every process (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy
as 1, 2, 3", SC 2011). Here a key is a seed and a counter says what the number is for:

    key      (low 32 bits of the seed, high 32 bits of the seed)
    counter  (block, image index, epoch, stream * 2**16 + view)

A block is four draws. A stream is one use of randomness (the order of an epoch, augmentation), so that uses never
share a word.
"""

from math import isqrt

import torch
from jaxtyping import Float32, Int, Int64
from torch import Tensor

ORDER, AUGMENT, CLASSES, MEMBERS, MIX, SUBSET, NEGATIVES, TEACHERS = range(8)  # the streams in use

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_TURNS = 8  # of the Feistel network
_FEISTEL = 2**16 - 1  # the view under which it draws: no image has so many
SORTED = 2**22  # rows of which an order is sorted: 128 bytes and half a microsecond each; of more, rows_at


def philox(counter: Int[Tensor, "*n 4"], key: tuple[int, int]) -> Int64[Tensor, "*n 4"]:
    """Four 32-bit words for each counter of four 32-bit words, all carried in int64 (Philox 4x32-10)."""
    x0, x1, x2, x3 = counter.long().unbind(-1)
    key0, key1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(x0, _MULTIPLIERS[0])
        high1, low1 = _multiply(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ key0, low1, high0 ^ x3 ^ key1, low0
        key0, key1 = (key0 + _KEY_STEPS[0]) & _WORD, (key1 + _KEY_STEPS[1]) & _WORD
    return torch.stack((x0, x1, x2, x3), dim=-1)


def uniform(
    seed: int, stream: int, epoch: int, index: Int[Tensor, " n"], view: int, draws: int
) -> Float32[Tensor, "n draws"]:
    """``draws`` numbers in [0, 1) for each image, multiples of 2**-24 and so exact in float32 on every device.

    They depend on the seed, the stream, the epoch, the image's index and the view, and on nothing else.

    Raises:
        ValueError: seed, stream, epoch or view is out of the range that a counter has for it.
    """
    return (_words(seed, stream, epoch, index, view, draws) >> 8).to(torch.float32) * 2.0**-24


def integers(
    seed: int, stream: int, epoch: int, index: Int[Tensor, " n"], draws: int, *, below: int
) -> Int64[Tensor, "n draws"]:
    """``draws`` whole numbers in [0, below) for each row, each as likely as the others to 2**-32 * below.

    Raises:
        ValueError: ``below`` is not a positive number below 2**31.
    """
    if not 0 < below < 2**31:
        raise ValueError(f"below {below} must lie in [1, 2**31), or a product would not fit into 64 bits.")
    return _words(seed, stream, epoch, index, 0, draws) * below >> 32


def epoch_order(seed: int, epoch: int, length: int) -> Int64[Tensor, " length"]:
    """The order of at most :data:`SORTED` images in an epoch: by a 64-bit word each, the lower index first in a tie.

    Raises:
        ValueError: the seed or the epoch is out of range.
    """
    return shuffle(torch.arange(length), seed=seed, stream=ORDER, epoch=epoch)


def rows_at(places: Int64[Tensor, " n"], length: int, *, seed: int, stream: int, epoch: int) -> Int64[Tensor, " n"]:
    """What stands at these places of a random permutation of [0, length), in time and memory that do not depend on it.

    A generalized Feistel network: a place is a pair of numbers below a and b, a * b >= length, of which each in turn
    has a number added that Philox makes of the other; what falls beyond ``length`` is sent through again (Black and
    Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, their methods 3 and 2). Eight rounds, twice the four
    of Luby and Rackoff. Another permutation than that of :func:`shuffle`.

    Raises:
        ValueError: seed, stream or epoch is out of range, or ``length`` is not below 2**62.
    """
    if not 0 < length < 2**62:
        raise ValueError(f"length {length} must lie in [1, 2**62).")
    high = isqrt(length - 1) + 1
    low, key = -(-length // high), _key(seed)
    rows, outside = places.clone(), torch.arange(len(places))
    while len(outside):
        left, right = rows[outside] // low, rows[outside] % low
        for turn in range(0, _TURNS, 2):
            left = (left + _summand(right, turn, epoch, stream, key)) % high
            right = (right + _summand(left, turn + 1, epoch, stream, key)) % low
        rows[outside] = left * low + right
        outside = outside[rows[outside] >= length]
    return rows


def _summand(
    half: Int64[Tensor, " n"], turn: int, epoch: int, stream: int, key: tuple[int, int]
) -> Int64[Tensor, " n"]:
    words = philox(_counter(torch.full_like(half, turn), half, epoch, stream, _FEISTEL), key)
    return (words[:, 0] << 30) + (words[:, 1] >> 2)  # 62 bits: so little above 2**31 that no remainder is likelier


def shuffle(index: Int64[Tensor, " n"], *, seed: int, stream: int, epoch: int, place: int = 0) -> Int64[Tensor, " n"]:
    """A random order of the rows of ``index``: sorted by a 64-bit word for each of its values.

    Shuffles with another seed, stream, epoch or ``place`` are independent of each other.

    Raises:
        ValueError: seed, stream or epoch is out of range.
    """
    words = philox(_counter(torch.full_like(index, place), index, epoch, stream, 0), _key(seed))
    signed_high = words[:, 0] - 2**31  # so that the 64-bit word fits into a signed integer
    return torch.sort(signed_high * 2**32 + words[:, 1], stable=True).indices


def _words(
    seed: int, stream: int, epoch: int, index: Int[Tensor, " n"], view: int, draws: int
) -> Int64[Tensor, "n draws"]:
    blocks = torch.arange(-(-draws // 4), device=index.device)
    index, blocks = torch.broadcast_tensors(index.long()[:, None], blocks)
    return philox(_counter(blocks, index, epoch, stream, view), _key(seed)).flatten(1)[:, :draws]


def _multiply(word: Int64[Tensor, "*n"], multiplier: int) -> tuple[Int64[Tensor, "*n"], Int64[Tensor, "*n"]]:
    """High and low 32 bits of a 32 x 32 bit product, which as a whole would overflow a signed 64-bit integer.

    Multiplied by (multiplier - 2**32) instead, which is small and negative; the missing word * 2**32 is a high part.
    """
    product = word * (multiplier - 2**32)
    return (product >> 32) + word, product & _WORD


def _counter(
    block: Int64[Tensor, "*n"], index: Int64[Tensor, "*n"], epoch: int, stream: int, view: int
) -> Int64[Tensor, "*n 4"]:
    if not (0 <= epoch <= _WORD and 0 <= stream < 2**16 and 0 <= view < 2**16):
        raise ValueError(
            f"epoch {epoch}, stream {stream} and view {view} must lie in [0, 2**32), [0, 2**16) and [0, 2**16)."
        )
    words = (block, index, torch.full_like(index, epoch), torch.full_like(index, stream << 16 | view))
    return torch.stack(words, dim=-1)


def _key(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed {seed} must lie in [0, 2**64).")
    return seed & _WORD, seed >> 32
