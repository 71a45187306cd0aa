"""Two units in one column: some rows of sizes or tokens lie decades below the others, or do not fit their own row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, numeric
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import codes

Array = NDArray[Any]
SIZES = ("params_total", "params_active", "params_non_embedding")
UNITS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}
GAP = 2.5
"""Decades without a value between two groups of rows; the designs of one sweep lie nearer to one another."""
SMALL = 1e5
"""Parameters or tokens below which the lower group holds no counts."""
LEAST_RATIO, MOST_RATIO = 0.01, 1e5
"""Tokens per parameter beyond which the two are in different units: public runs have 0.1 to 1e4."""
SWAPPED = 0.1
"""Median tokens per parameter below which the two look swapped, where no row has one."""
_FEWEST = 4


def mixed_units(columns: Columns) -> tuple[dict[str, Array], list[Finding]]:
    """The columns with every row in the unit of the larger values, and a note on each column that mixes units."""
    even, found = dict(columns), []
    for name in (*SIZES, "tokens", "unique_tokens"):
        values = _numbers(columns, name)
        if values is None:
            continue
        low, limit = _lower_group(values)
        if not low.any():
            continue
        others = values[(values > 0) & ~low]
        unit = nearest_unit(values[low], float(np.median(others)))
        even[name] = np.where(low, values * UNITS[unit], values)
        factor = f"{UNITS[unit]:g}".replace("e+0", "e").replace("e+", "e")
        text = (
            f"{name}: {int(low.sum())} of {len(low)} rows ({_which(columns, low)}) hold {span(values[low])}, "
            f"the others {span(others)}: the smaller ones look like {unit}"
        )
        mend = f"--let '{name} = CASE WHEN {name} < {limit:g} THEN {factor} * {name} ELSE {name} END'"
        found.append(Finding(check="units", text=text, mend=mend.replace("e+0", "e")))
    return even, found + ([] if found else _odd_ratios(columns))


def nearest_unit(values: Array, aim: float) -> str:
    """The unit that brings the middle of the values nearest to `aim`."""
    middle = float(np.median(values))
    return min(UNITS, key=lambda unit: abs(np.log(middle * UNITS[unit] / aim)))


def _lower_group(values: Array) -> tuple[Array, float]:
    """The rows below the widest gap where that is one between two units, (n,), and a power of ten inside the gap."""
    none = np.zeros(len(values), bool)
    logs = np.unique(np.log10(values[values > 0]))
    if len(values) < _FEWEST or len(logs) < 2:
        return none, 0.0
    at = int(np.argmax(np.diff(logs)))
    if logs[at + 1] - logs[at] < GAP or 10 ** logs[at] > SMALL or 10 ** logs[at + 1] < SMALL:
        return none, 0.0
    limit = 10.0 ** round((logs[at] + logs[at + 1]) / 2)
    return (values > 0) & (values < limit), limit


def _odd_ratios(columns: Columns) -> list[Finding]:
    """Rows whose tokens per parameter no run has, while most rows have usual ones."""
    size = next((name for name in SIZES if _numbers(columns, name) is not None), None)
    params, tokens = (None if name is None else _numbers(columns, name) for name in (size, "tokens"))
    if params is None or tokens is None or len(params) != len(tokens) or len(params) < _FEWEST:
        return []
    if not ((params > 0).all() and (tokens > 0).all()):
        return []
    ratio = tokens / params
    middle = float(np.median(ratio))
    counts = np.median(params) > SMALL and np.median(tokens) > SMALL
    if counts and (swapped := swapped_sizes(ratio, size or "")):
        return swapped
    odd = ((ratio < LEAST_RATIO) | (ratio > MOST_RATIO)) & (np.abs(np.log10(ratio / middle)) > GAP)
    if not LEAST_RATIO <= middle <= MOST_RATIO or not odd.any():
        return []
    text = (
        f"{int(odd.sum())} of {len(odd)} rows ({_which(columns, odd)}) have {span(ratio[odd])} tokens "
        f"per parameter of {size}, the median is {middle:.3g}: is their unit another one?"
    )
    return [Finding(check="units", text=text)]


def swapped_sizes(ratio: Array, size: str) -> list[Finding]:
    """Whether size and tokens look swapped, by the tokens per parameter (n,) of `size`."""
    if ratio.max() >= 1 or not LEAST_RATIO < np.median(ratio) < SWAPPED:
        return []
    text = f"{'every row has ' * (len(ratio) > 1)}fewer tokens than parameters ({span(ratio)} per parameter of {size})"
    return [Finding(check="swapped", text=f"{text}: no run trains so little; are {size} and tokens swapped?")]


def span(values: Array) -> str:
    """The least and the largest of some values, or the one that they all are."""
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"


def looks_like(values: Array, what: str) -> str:
    """1 to 20 look like billions; 1.4 looks like trillions."""
    low, high = f"{values.min():g}", f"{values.max():g}"
    return f"{low} looks like {what}" if low == high else f"{low} to {high} look like {what}"


def _which(columns: Columns, rows: Array) -> str:
    """The rows' numbers, or the file or files that hold exactly these rows."""
    if "file" in columns:
        index, names = codes(columns["file"])
        inside = np.unique(index[rows])
        if len(inside) < len(names) and not np.isin(index[~rows], inside).any():
            return "file " + ", ".join(str(name) for name in names[inside])
    return numbered(rows)


def numbered(rows: Array) -> str:
    """The numbers of the rows that hold, from 1; at most five of them."""
    at = np.flatnonzero(rows) + 1
    if len(at) > 1 and at[-1] - at[0] == len(at) - 1:
        return f"rows {at[0]} to {at[-1]}"
    listed = ", ".join(str(row) for row in at[:5])
    return f"row{'s' if len(at) > 1 else ''} {listed}{', ...' if len(at) > 5 else ''}"


def _numbers(columns: Columns, name: str) -> Array | None:
    """A column's numbers, missing ones as 0; None where there are none."""
    values = numeric(columns, name) if name in columns or name == "unique_tokens" else None
    return None if values is None else np.where(np.isfinite(values), values, 0.0)
