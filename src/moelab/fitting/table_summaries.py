"""Rows of a table that summarise the others: their average or sum is no run."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, numeric
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import quoted

Array = NDArray[Any]
WORDS = (
    "average", "avg", "mean", "median", "total", "totals", "sum", "std", "stddev", "stdev", "min", "max", "overall",
)  # fmt: skip
FEWEST_ROWS, FEWEST_COLUMNS, EQUAL = 4, 2, 1e-3
"""Rows and varying columns from which a last row can be the mean or sum of the others, and how equal it is: cells are
rounded."""


def summary_rows(columns: Columns) -> tuple[Array, str]:
    """Rows (n,) that a column of text calls an average, a sum, ..., or a last row that is that of all others; and the
    column ('' for the latter). A column whose other cells repeat is a setting, such as how outputs are joined."""
    rows = len(next(iter(columns.values()), ()))
    for name, values in columns.items():
        if values.dtype.kind in "fiub" or values.ndim > 1:
            continue
        called = np.array([str(value).strip().strip(":").lower() in WORDS for value in values], bool)
        names = 2 * len({str(value) for value in values[~called]}) >= rows - called.sum()
        if called.any() and names and called.sum() * FEWEST_ROWS <= rows:
            return called, name
    last = np.zeros(rows, bool)
    if rows > FEWEST_ROWS:
        last[-1] = _is_summary(columns)
    return last, ""


def _is_summary(columns: Columns) -> bool:
    """Whether the last row is the mean or sum of the others in every column of numbers that varies."""
    found = [values for name in columns if (values := numeric(columns, name)) is not None and np.isfinite(values).all()]
    varying = [values for values in found if np.ptp(values[:-1]) > 0]
    if len(varying) < FEWEST_COLUMNS:
        return False
    return any(
        all(abs(values[-1] - of(values[:-1])) <= EQUAL * abs(values[-1]) for values in varying)
        for of in (np.mean, np.sum)
    )


def summary_findings(columns: Columns, target: str) -> list[Finding]:
    """Rows of averages or sums, with the condition that leaves them out."""
    rows, name = summary_rows(columns)
    if not rows.any():
        return []
    at = int(np.flatnonzero(rows)[0])
    if name:
        words = list(dict.fromkeys(str(value) for value in columns[name][rows]))
        listed = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
        text = f"row {at + 1} is called {words[0]} (column {name}): a summary of the others is no run"
        condition = f"NOT IN ({listed})" if len(words) > 1 else f"!= {listed}"
        mend = f'leave it out with --where "{quoted(name)} {condition}"'
        return [Finding(check="summary", text=text, mend=mend)]
    text = f"row {at + 1}, the last one, is the mean or sum of all others in every column: a summary is no run"
    mend = (
        f'leave it out with --where "{quoted(target)} != {float(columns[target][at])!r}"' if target in columns else ""
    )
    return [Finding(check="summary", text=text, mend=mend)]
