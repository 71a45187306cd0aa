"""Cells of tables and the little markup that text may carry."""

import numpy as np
import pytest

from moelab.report.words import column_alignment, column_cells, rich


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([3.42811, 3.6, None, float("nan")], ["3.428", "3.600", "–", "–"]),
        ([0.000399, 0.0123, 0.5], ["0.0004", "0.0123", "0.5000"]),
        ([1e-5, 3e-4], ["1e-05", "0.0003"]),
        ([94.21, 100.0], ["94.2", "100.0"]),
        ([2.1e12, 3.5e13], ["2.1T", "35T"]),
        ([12_880_000_000, 512, 43_000], ["12.9B", "512", "43,000"]),
        ([True, False], ["yes", "no"]),
        ([np.float64(3.5), np.int64(7)], ["3.500", "7"]),
        (["d48", "<b>"], ["d48", "<b>"]),
        ([0.0, 1.0], ["0.000", "1.000"]),
        ([5570.2, 0.1988, -0.00041], ["5.57K", "0.1988", "-0.00041"]),
    ],
)
def test_cells(values: list[object], cells: list[str]) -> None:
    assert column_cells([[value] for value in values], 0) == cells


@pytest.mark.parametrize(
    ("values", "side"),
    [
        ([1, 2.5, None], "right"),
        (["+1.0 %", "−0.4 %"], "right"),
        (["2.98 – 3.09", "-"], "right"),
        (["62K", "1.6M"], "right"),
        (["4 min 05 s"], "right"),
        (["4 layers of width 48"], "left"),
        (["4 layers of width 48, 3 heads, dense feed-forward"], "left long"),
        (["dense", "moe"], "left"),
        ([True, False], "left"),
        ([None], "left"),
        (["abnar2025", 3], "left"),
    ],
)
def test_alignment(values: list[object], side: str) -> None:
    assert column_alignment([[value] for value in values], 0) == side


def test_short_rows_are_filled() -> None:
    assert column_cells([["a", 1], ["b"]], 1) == ["1", "–"]


def test_rich_escapes_before_it_marks_code() -> None:
    assert rich("`a<b` & <i>") == "<code>a&lt;b</code> &amp; &lt;i&gt;"
