"""Axes: round numbers on log scales, margins, and labels that do not overlap."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moelab.report.theme import log_ticks, ordered_colors, padded, spread_labels


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 1000, [1, 3, 10, 30, 100, 300, 1000]),
        (2e4, 2e5, [2e4, 5e4, 1e5, 2e5]),
        (1e18, 1e26, [1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26]),
        (100, 130, [100, 110, 120, 130]),
    ],
)
def test_log_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-9, 1e25), st.floats(1.02, 1e12))
def test_log_ticks_are_few_and_inside(low: float, factor: float) -> None:
    high = low * factor
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 13
    assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)


@given(st.lists(st.floats(3, 4), min_size=1, max_size=12))
def test_labels_stay_apart_and_in_order(losses: list[float]) -> None:
    placed = spread_labels(losses, 3, 4, 400, gap=13)
    pixels = sorted(place * 400 for place in placed)
    assert all(b - a > 12 for a, b in itertools.pairwise(pixels))
    for i, a in enumerate(losses):
        for j, b in enumerate(losses):
            assert a >= b or placed[i] <= placed[j]


def test_labels_far_apart_do_not_move() -> None:
    assert spread_labels([3.1, 3.9, 3.5], 3, 4, 400) == pytest.approx([3.1, 3.9, 3.5])


@given(st.lists(st.floats(1e-3, 1e12), min_size=1), st.booleans())
@example(values=[1e12, math.nextafter(1e12, 0.0)], log=False)
@example(values=[1e12, math.nextafter(1e12, 0.0)], log=True)
def test_padding_holds_every_value(values: list[float], log: bool) -> None:
    low, high = padded(values, log)
    assert math.isfinite(low)
    assert low < min(values) <= max(values) < high
    assert low > 0 or not log


def test_padding_ignores_what_is_not_known() -> None:
    assert padded([1.0, None, 2.0], share=0.1) == pytest.approx([0.9, 2.1])


def test_ordered_colors() -> None:
    assert len(set(ordered_colors(4))) == 4
    assert len(ordered_colors(9)) == 9
