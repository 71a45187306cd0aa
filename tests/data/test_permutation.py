"""The memoryless shuffle is a permutation, and looks like a random one."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moelab.data.permutation import permute


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_every_index_comes_once(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_entries_do_not_depend_on_what_is_asked_beside_them() -> None:
    whole = permute(np.arange(1000), 1000, 7)
    assert permute(np.array([13, 999, 0]), 1000, 7).tolist() == whole[[13, 999, 0]].tolist()


def test_the_order_is_the_same_for_ever() -> None:
    """Resuming an old run needs the order it began with: these numbers may never change."""
    assert permute(np.arange(10), 10, 0).tolist() == [1, 2, 9, 3, 0, 4, 6, 8, 7, 5]
    assert permute(np.arange(3), 10**12, 5).tolist() == [835829298108, 132437727660, 516107916029]


def test_all_orders_are_about_equally_likely() -> None:
    """24 orders of four, 2,400 keys: chi-square with 23 degrees of freedom stays under its 99.9 % point, 49.7."""
    counts = Counter(tuple(permute(np.arange(4), 4, key).tolist()) for key in range(2400))
    assert len(counts) == 24
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7


def test_neighbours_are_torn_apart() -> None:
    order = permute(np.arange(100_000), 100_000, 3)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02
