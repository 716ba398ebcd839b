"""Philox 4x32-10 on Python integers, which cannot overflow: the slow twin of ssl_transfer/data/counter.py."""


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds over one counter, written from section 3.2 of Salmon et al. (SC 2011)."""
    left0, right0, left1, right1 = counter
    for number in range(10):
        key0 = (key[0] + number * 0x9E3779B9) % 2**32
        key1 = (key[1] + number * 0xBB67AE85) % 2**32
        high0, low0 = divmod(0xD2511F53 * left0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * left1, 2**32)
        left0, right0, left1, right1 = high1 ^ right0 ^ key0, low1, high0 ^ right1 ^ key1, low0
    return left0, right0, left1, right1
