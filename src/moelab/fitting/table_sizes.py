"""Counts of parameters that cannot be those of one model: another unit in one of two columns, or another model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.blanks import DENSE
from moelab.fitting.columns import Columns, numeric
from moelab.fitting.findings import Finding
from moelab.fitting.table_mixed import UNITS, looks_like, nearest_unit, numbered, span

Array = NDArray[Any]
EXPERTS = (("params_active", "params_total"), ("params_active_non_embedding", "params_non_embedding"))
"""Active and all parameters: all are at most as many times the active ones as all experts are those in use."""
EMBEDDING = (
    ("params_non_embedding", "params_total"), ("params_active_non_embedding", "params_active"),
    ("params_dense", "params_total"),
)  # fmt: skip
"""A part and the whole that it is of, whatever the experts."""
APART, APART_UNKNOWN = 100.0, 1e4
"""Factors beyond what experts explain, and beyond what any model has where no column gives its experts, from which one
of two counts is in another unit."""
EQUAL, MOST = 0.01, 1.5
"""Relative difference from which active and all parameters of a dense model differ; factor beyond that of the experts,
which leaves room for embeddings that one of the counts leaves out."""


def unit_pairs(columns: Columns) -> list[Finding]:
    """A finding for each column of parameters that is in another unit than one beside it."""
    found: dict[str, Finding] = {}
    for part, whole in (*EXPERTS, *EMBEDDING):
        experts = _experts(columns) if (part, whole) in EXPERTS else None
        values = _positive(columns, part, whole, experts)
        if values is None or {part, whole} & set(found):
            continue
        low, high, most = values
        apart = np.log(np.median(high / low / most))
        if abs(apart) < np.log(APART_UNKNOWN if experts is None else APART):
            continue
        name, own, other = (part, low, high / np.sqrt(most)) if apart > 0 else (whole, high, low * np.sqrt(most))
        unit = nearest_unit(own, float(np.median(other)))
        factor = f"{UNITS[unit]:g}".replace("e+0", "e").replace("e+", "e")
        text = f"{name}: beside {whole if name == part else part}, {looks_like(own, unit)}"
        found[name] = Finding(check="units", text=text, mend=f"--let '{name} = {factor} * {name}'")
    return list(found.values())


def size_findings(columns: Columns, target: str) -> list[Finding]:
    """Findings on active parameters that cannot be those of their model: of a dense one, which uses all, or of fewer
    than its experts explain."""
    found, experts = [], _experts(columns)
    for part, whole in EXPERTS if experts is not None else ():
        values = _positive(columns, part, whole, experts)
        if values is None:
            continue
        low, high, most = values
        ratio = np.where(high / low < APART * most, high / low, 1.0)  # in another unit: noted as such
        dense = (most == 1) & (ratio > 1 + EQUAL)
        few = (most > 1) & (ratio > MOST * most)
        if dense.any():
            text = f"{part} is below {whole} in {_rows(dense)} ({span(1 / ratio[dense])} of it) without experts, and a "
            found.append(Finding(check="sizes", text=f"{text}dense model uses all its parameters: {_SAME}"))
        if few.any():
            worst = int(np.argmax(np.where(few, ratio / most, 0)))
            text = (
                f"{whole} is {ratio[worst]:.3g} times {part} in row {worst + 1}, and {most[worst]:.3g} times as many "
            )
            text += f"experts as are in use explain no more than that factor ({_rows(few)}): {_SAME}"
            found.append(Finding(check="sizes", text=text))
    return found


_SAME = "do the two columns count the same, and of the same model?"


def _rows(rows: Array) -> str:
    return f"{int(rows.sum())} of {len(rows)} rows, {numbered(rows)}" if len(rows) > 1 else "the design"


def _experts(columns: Columns) -> Array | None:
    """All experts over those in use (n,), 1 for dense runs; None where no column gives it."""
    ratio = numeric(columns, "expert_ratio")
    if ratio is None and "sparsity" in columns and (share := numeric(columns, "sparsity")) is not None:
        ratio = 1 / np.where(share < 1, 1 - share, np.nan)
    return None if ratio is None or not (ratio >= DENSE["expert_ratio"]).all() else ratio


def _positive(columns: Columns, part: str, whole: str, experts: Array | None) -> tuple[Array, Array, Array] | None:
    """Two columns and the experts' ratio, (n,) each; None unless both columns are there and positive."""
    if part not in columns or whole not in columns:
        return None
    low, high = numeric(columns, part), numeric(columns, whole)
    if low is None or high is None or len(low) != len(high) or not len(low):
        return None
    most = np.ones(len(low)) if experts is None else experts
    if len(most) != len(low) or not ((low > 0).all() and (high > 0).all()):
        return None
    return low, high, most
