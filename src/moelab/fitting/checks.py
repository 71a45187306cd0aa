"""What a number must be to enter a fit or a prediction. Fits and predictions refuse it with the same message."""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.laws.law import COUNTS, RATES, SHARES
from moelab.quantities import parse_number

Array = NDArray[Any]
_DECIMAL = re.compile(r"[+-]?\d+,\d+[A-Za-z]?\Z")
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+\Z")
"""One comma, which may be a decimal one; commas that may part thousands."""
MOST = 100_000
"""Bootstrap replicates, draws or starts beyond which only memory and time grow."""
ROUNDING = 1e-9
FEWEST_DRAWS = 20
"""Draws below which the 10th and 90th percentile are little more than the extremes."""
FEWEST_IN_INTERVAL = 10
"""Draws below which there is no interval at all."""


def numbers(values: Array, name: str) -> Array:
    """A column as floats. Raises InputError with the first cell that is no number and its row."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        for row, cell in enumerate(values, 1):
            try:
                np.asarray(cell, dtype=float)
            except (TypeError, ValueError):
                raise InputError(
                    f"{name}: expected numbers, row {row} holds {str(cell)!r}{_plain(str(cell), values)}"
                ) from None
        raise InputError(f"{name}: expected a column of numbers, one per row") from None


def _plain(cell: str, column: Array) -> str:
    """How to write a cell such as 15.1B, 2,465,562, 2.465.562 or 4,402; what others leave open."""
    cell = cell.strip()
    whole, point = _parsed(cell.replace(",", "")), _parsed(cell.replace(",", "."))
    if whole is None:
        whole = _parsed(cell.replace(".", "").replace(",", "."))
    if not _DECIMAL.match(cell):
        point = None
    elif not _GROUPED.match(cell):
        whole = None
    else:
        others = [str(other).strip() for other in column]
        decimal = any(_DECIMAL.match(other) and not _GROUPED.match(other) for other in others)
        grouped = any(_GROUPED.match(other) and not _DECIMAL.match(other) for other in others)
        if decimal != grouped:
            whole, point = (None, point) if decimal else (whole, None)
    if whole is not None and point is not None:
        return f"; write it as {whole}, or as {point} where its comma is a decimal one"
    value = whole if point is None else point
    return "" if value is None else f"; write it as {value}"


def _parsed(cell: str) -> str | None:
    try:
        return f"{parse_number(cell):.12g}"
    except InputError:
        return None


def check_variable(name: str, values: Array, hint: str = "") -> None:
    """Shares lie in [0, 1), rates in (0, 1], counts of experts from 1, everything else is positive, all of it finite.

    Raises InputError naming the first row.
    """
    if name in SHARES:
        check_numbers(name, values, (values >= 0) & (values < 1), "must be at least 0 and below 1", hint)
    elif name in RATES:
        check_numbers(name, values, (values > 0) & (values <= 1 + ROUNDING), "must be above 0 and at most 1", hint)
    elif name in COUNTS:
        check_numbers(name, values, values >= 1 - ROUNDING, "must be at least 1", hint)
    else:
        check_numbers(name, values, values > 0, "must be positive", hint)


def check_numbers(name: str, values: Array, allowed: Array, word: str, hint: str = "") -> None:
    """Finite, and `allowed` everywhere. Raises InputError with `word`, how many rows are not and the first of them."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        word = "must be finite numbers" if len(values) > 1 else word.replace("must be", "must be finite and")
    else:
        wrong = ~allowed
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    if len(values) == 1:
        raise InputError(f"{name}: {word}, got {values[0]:g}")
    raise InputError(
        f"{name}: {word}; {int(wrong.sum())} of {len(values)} rows are not, first row {row + 1} ({values[row]:g}){hint}"
    )


def check_seed(seed: int) -> None:
    """Raises InputError for a seed that is no whole number or negative, which numpy does not take."""
    _whole("seed", seed)
    if seed < 0:
        raise InputError(f"seed: must be at least 0, got {seed}")


def check_effort(name: str, count: int, fewest: int = 0) -> None:
    """Raises InputError for fewer than `fewest` or more than MOST replicates, draws or starts."""
    _whole(name, count)
    if not fewest <= count <= MOST:
        raise InputError(f"{name}: must be {fewest} to {MOST}, got {count}")


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{name}: expected a whole number, got {value!r}")
