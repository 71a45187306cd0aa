"""Losses of one column in two units: nats and bits per token, or per token and per byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import Columns, finite_numbers
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import quoted
from moelab.fitting.table_mixed import numbered
from moelab.fitting.table_outliers import surface_features, surface_residuals

Array = NDArray[Any]
BYTES = (2.5, 6.0)
"""Bytes per token of the tokenizers of language models on English text and code (3.3 to 4.8), with a margin."""
NEAR = 0.015
"""Relative distance from ln 2 within which a factor is that of bits."""
CLEAR, BETTER = 15.0, 5.0
"""Times the scatter of the rows around their surface that the two groups lie apart, and that the scatter falls."""
MOST_BYTE_LOSS = 2.0
"""Median bits per byte above which no model trains: untrained ones have about 3.5."""
FEWEST_ROWS, FEWEST_MIXED, ROUNDS, LISTED, MOST_CUTS, MOST_FITTED = 12, 3, 20, 40, 8, 1000
NOTHING = 1e-9
"""Relative size from which a column adds nothing to the others."""
DIRECTIONS = 12
"""Directions of size and data along which a group may begin: the largest, the most data, the most per parameter."""


def mixed_losses(columns: Columns, target: str) -> tuple[Array, list[Finding]]:
    """Rows (n,) whose loss is in another unit than the others', and a note with the conversion.

    The log losses are a quadratic surface in log size and log tokens and a constant for one group of rows; the group
    is found by turns with the surface. It counts where its factor is ln 2 or that of bits per byte, and clear.
    """
    values = finite_numbers(columns, target) if target in columns else None
    rows = len(columns[target]) if target in columns else 0
    none = np.zeros(rows, bool)
    if values is None or len(values) < max(rows, FEWEST_ROWS) or not (values > 0).all():
        return none, []
    features = surface_features(columns, target)
    if features is None or not np.isfinite(features).all() or rows < 2 * features.shape[1] + 2:
        return none, []
    found = _two_groups(features, np.log(values))
    if found is None:
        return none, []
    high, ratio = found
    if abs(ratio / np.log(2) - 1) < NEAR:
        return high, [_finding(target, values, high, "bits per token", f"{quoted(target)} * LN(2)")]
    length = 1 / (ratio * np.log(2))
    if BYTES[0] < length < BYTES[1] and np.median(values[~high]) < MOST_BYTE_LOSS:
        unit = f"bits per byte (of {length:.3g} bytes per token)"
        return ~high, [_finding(target, values, ~high, unit, f"{quoted(target)} * {1 / ratio:.4g}")]
    return none, []


def _two_groups(features: Array, logs: Array) -> tuple[Array, float] | None:
    """The rows (n,) of the larger losses, and the factor of the others below them; None where there is one group."""
    few = slice(None, None, -(-len(logs) // MOST_FITTED))
    part, values = features[few], logs[few]
    basis = _basis(part)
    left = values - basis @ (basis.T @ values)
    found = _by_turns(basis, left, _distinct(np.stack(_starts(part, values))), len(left) - part.shape[1] - 1)
    if found is None:
        return None
    scatter, group = found
    *surface, apart = np.linalg.lstsq(np.column_stack([part, group]), values, rcond=None)[0]
    if apart < CLEAR * scatter or float(np.std(left)) < BETTER * scatter:
        return None
    high = logs - features @ np.array(surface) > apart / 2
    return (high, float(np.exp(-apart))) if min(high.sum(), (~high).sum()) >= FEWEST_MIXED else None


def _basis(features: Array) -> Array:
    """Orthonormal columns (n, rank) of the same span."""
    vectors, sizes, _ = np.linalg.svd(features, full_matrices=False)
    return np.asarray(vectors[:, sizes > NOTHING * sizes[0]])


def _starts(features: Array, values: Array) -> list[Array]:
    """First guesses of the group: what lies beyond a cut in size and data; residuals of least absolute deviations and
    of least squares above their widest gap, and above their mean."""
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    along = [np.cos(angle) * features[:, 1] + np.sin(angle) * features[:, 2] for angle in angles]
    guesses = [each > cut for each in along for cut in _cuts(each)]
    squares = values - features @ np.linalg.lstsq(features, values, rcond=None)[0]
    for residuals in (surface_residuals(features, values), squares):
        ordered = np.sort(residuals)
        gap = int(np.argmax(np.diff(ordered)))
        guesses += [residuals > (ordered[gap] + ordered[gap + 1]) / 2, residuals > residuals.mean()]
    return guesses


def _cuts(values: Array) -> Array:
    distinct = np.unique(values)
    return distinct[:-1] if len(distinct) <= MOST_CUTS else np.quantile(values, np.linspace(0, 1, MOST_CUTS)[1:-1])


def _by_turns(basis: Array, left: Array, high: Array, spare: int) -> tuple[float, Array] | None:
    """The least scatter and its group (n,), of groups (S, n) that are each fitted to the surface by turns.

    `basis` (n, rank) spans the surfaces, and `left` (n,) is what they leave of the values. With a constant for the
    group they leave `left - apart * aside`, where `aside` is what they leave of the group. None where no group lies
    above the others.
    """
    best: tuple[float, Array] | None = None
    for last in (*[False] * (ROUNDS - 1), True):
        high = high[high.any(axis=1) & ~high.all(axis=1)]
        aside = high - (high @ basis) @ basis.T
        norm = np.sum(aside * aside, axis=1)
        kept = norm > NOTHING * high.shape[1]
        high, aside = high[kept], aside[kept]
        apart = (aside @ left / norm[kept])[:, None]
        high, aside, apart = (each[apart[:, 0] > 0] for each in (high, aside, apart))
        if not len(high):
            break
        residuals = left - apart * aside
        again = residuals + apart * high > apart / 2
        settled = (again == high).all(axis=1) | last
        if settled.any():
            scatter = np.sqrt(np.sum(residuals[settled] ** 2, axis=1) / spare)
            first = int(np.argmin(scatter))
            if best is None or scatter[first] < best[0]:
                best = float(scatter[first]), high[settled][first]
        high = _distinct(again[~settled])
    return best


def _distinct(groups: Array) -> Array:
    """The rows (S, n) of a boolean array without repeats."""
    first = {row.tobytes(): number for number, row in reversed(list(enumerate(np.packbits(groups, axis=1))))}
    return groups[sorted(first.values())]


def _finding(target: str, values: Array, rows: Array, unit: str, change: str) -> Finding:
    name, inside, others = quoted(target), values[rows], values[~rows]
    if inside.min() > others.max():
        where = f"{name} > {(inside.min() + others.max()) / 2:.4g}"
    elif inside.max() < others.min():
        where = f"{name} < {(inside.max() + others.min()) / 2:.4g}"
    elif len(inside) <= LISTED and not np.isin(inside, others).any():
        where = f"{name} IN ({', '.join(repr(float(each)) for each in inside)})"
    else:
        where = ""
    text = f"{target}: {int(rows.sum())} of {len(rows)} rows ({numbered(rows)}) look like {unit}, the others do not"
    mend = f"--let '{name} = CASE WHEN {where} THEN {change} ELSE {name} END'" if where else ""
    return Finding(check="units", text=text, mend=mend)
