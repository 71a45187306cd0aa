"""A shuffle that needs no memory: entry i of a keyed permutation of 0..n-1, computed directly.

A Feistel network on a rectangle of at least n cells, walked until it lands below n; its round function is the finaliser
of SplitMix64. It depends on nothing but integers, so the order is the same on every machine and version of NumPy.
"""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def scramble(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64-bit integers that looks random."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def permute(index: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """Where each index (0 <= index < size) goes under the permutation that `key` chooses."""
    width = np.uint64(max(int(np.ceil(np.sqrt(size))), 1))
    keys = _round_keys(key)
    result = index.astype(np.uint64)
    outside = np.ones(result.shape, dtype=bool)
    while outside.any():
        result[outside] = _rounds(result[outside], width, keys)
        outside = result >= np.uint64(size)
    return result.astype(np.int64)


def _round_keys(key: int) -> NDArray[np.uint64]:
    steps = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _GOLDEN
    return scramble(scramble(np.asarray([key % 2**64], dtype=np.uint64) + _GOLDEN) + steps)


def _rounds(cell: NDArray[np.uint64], width: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass of the network: a bijection of the width x width cells."""
    left, right = cell // width, cell % width
    for key in keys:
        left, right = right, (left + scramble(right + key) % width) % width
    return left * width + right
