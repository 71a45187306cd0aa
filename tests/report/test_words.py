"""Cells of tables and the little markup that text may carry."""

import numpy as np
import pytest

from moelab.report.words import column_alignment, column_cells, interval_cells, page_columns, rich


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([3.42811, 3.6, None, float("nan")], ["3.428", "3.600", "–", "–"]),
        ([0.000399, 0.0123, 0.5], ["0.000399", "0.0123", "0.5"]),
        ([0.04, 0.0123, 0.5], ["0.0400", "0.0123", "0.5000"]),
        ([1.7083, 433.02], ["1.708", "433"]),
        ([1e-5, 3e-4], ["1e-05", "0.0003"]),
        ([94.21, 100.0], ["94.2", "100.0"]),
        ([2.1e12, 3.5e13], ["2.1T", "35T"]),
        ([12_880_000_000, 512, 43_000], ["12.9B", "512", "43K"]),
        ([799_744, 1_600_000], ["800K", "1.6M"]),
        ([27_432, 114_864], ["27,432", "114,864"]),
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


def test_a_value_and_its_interval_share_the_digits_of_its_width() -> None:
    """Coefficients of one column differ by factors of a thousand: none is rounded by the largest of them."""
    rows = [
        ["E_0", 1.70829, 1.70371, 1.71252, ""],
        ["A", 433.0212, 402.18, 461.9, ""],
        ["alpha", 0.340061, 0.337512, 0.341698, ""],
        ["beta", 0.281749, 0.281102, 0.282601, "at a bound"],
        ["held", 0.28, None, None, "held"],
        ["sharp", 2.0, 2.0, 2.0, ""],
        ["wide", 0.01, -0.7, 0.9, ""],
        ["N", 1.2345e8, 1.2e8, 1.3e8, ""],
        ["B", 1478.3, 187.2, 11700.0, ""],
        ["none", 3.61e-41, -1.15, 1.16, ""],
    ]
    _, value, low, high, note = page_columns(["coefficient", "value", "p10", "p90", "note"], rows)
    assert value.cells == [
        "1.7083",
        "433",
        "0.3401",
        "0.28175",
        "0.28000",
        "2.0000",
        "0.0100",
        "123.4M",
        "1.48K",
        "0.00",
    ]
    assert low.cells == ["1.7037", "402", "0.3375", "0.28110", "–", "2.0000", "-0.700", "120M", "187", "-1.15"]
    assert high.cells == ["1.7125", "462", "0.3417", "0.28260", "–", "2.0000", "0.900", "130M", "11.7K", "1.16"]
    assert value.exact[2] == "0.340061"
    assert note.cells[3] == "at a bound"


@pytest.mark.parametrize("seed", range(20))
def test_no_interval_looks_narrower_than_it_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    middle, half = 10 ** rng.uniform(-2.5, 3.5), 10 ** rng.uniform(-5, -0.5)
    low, high = middle * (1 - half), middle * (1 + half)
    shown = [float(cells[0]) for cells in interval_cells([[middle, low, high]], 0)]
    assert shown[2] - shown[1] == pytest.approx(high - low, rel=0.1)
    assert shown[0] == pytest.approx(middle, abs=0.06 * (high - low))


def test_short_rows_are_filled() -> None:
    assert column_cells([["a", 1], ["b"]], 1) == ["1", "–"]


def test_rich_escapes_before_it_marks_code() -> None:
    assert rich("`a<b` & <i>") == "<code>a&lt;b</code> &amp; &lt;i&gt;"
