"""Blank cells that mean dense: a dense model has one expert, all of it in use."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.columns import Columns

Array = NDArray[Any]
DENSE = {
    "n_experts": 1.0, "top_k": 1.0, "n_shared_experts": 0.0, "d_shared": 0.0, "expert_ratio": 1.0, "expansion": 1.0,
    "granularity": 1.0, "sparsity": 0.0, "activation_rate": 1.0, "expert_activation": 1.0, "active_experts": 1.0,
    "shared_share": 0.0,
}  # fmt: skip
"""What a dense model has in the columns that describe experts."""
_PAIRS = (("params_active", "params_total"), ("params_active_non_embedding", "params_non_embedding"))
"""Active and total parameters, equal in a dense model."""
_MARKS = ("n_experts", "expert_ratio", "sparsity", "expert_activation")
"""Columns of which a blank, or a count of 0, marks a dense run."""


def filled(columns: Columns) -> tuple[dict[str, Array], list[str]]:
    """The columns with the blanks of dense rows filled in, and a note on what was; other blanks stay.

    A row is dense where it has no number, or a count of 0, in the first of n_experts, expert_ratio, sparsity and
    expert_activation that the table has, and no number above it in the others; its active and total parameters agree.
    """
    mark = next((name for name in _MARKS if name in columns), None)
    if mark is None:
        return dict(columns), []
    values = _floats(columns, mark)
    if values is None or np.isnan(values).all():
        return dict(columns), []
    dense = np.isnan(values) | ((values == 0) if mark in ("n_experts", "expert_ratio") else False)
    dense &= ~_sparse(columns, len(values))
    if not dense.any():
        return dict(columns), []
    found, changed = dict(columns), []
    for name, value in DENSE.items():
        given = _floats(columns, name) if name in columns else None
        if given is None:
            continue
        blank = dense & (np.isnan(given) | ((given == 0) & (value > 0)))
        if blank.any():
            found[name] = np.where(blank, value, given)
            changed.append(f"{name} {value:g}")
    for name, total in _PAIRS:
        used, there = (_floats(columns, each) if each in columns else None for each in (name, total))
        if used is None or there is None:
            continue
        blank = dense & np.isnan(used) & np.isfinite(there)
        if blank.any():
            found[name] = np.where(blank, there, used)
            changed.append(f"{name} that of {total}")
    count, rows = int(dense.sum()), len(dense)
    return found, [f"{count} of {rows} rows have no {mark} and are taken as dense ({', '.join(changed)})"]


def zero_as_dense(columns: Columns) -> Columns:
    """The columns of designs with a dense model's values where there are 0 experts and none is in use."""
    experts = _floats(columns, "n_experts") if "n_experts" in columns else None
    used = _floats(columns, "top_k") if "top_k" in columns else None
    if experts is None or not (experts == 0).any():
        return columns
    dense = experts == 0
    if used is not None:
        if len({len(used), len(experts)} - {1}) > 1:
            return columns  # of different lengths, which is refused by name later on
        dense = dense & ~(used > 1)
    found = {**columns, "n_experts": np.where(dense, DENSE["n_experts"], experts)}
    for name, value in DENSE.items():
        given = _floats(columns, name) if name in columns and name != "n_experts" else None
        if given is not None and value > 0 and len({len(given), len(dense)} - {1}) <= 1:
            found[name] = np.where(dense & (given == 0), value, given)
    return found


def _sparse(columns: Columns, rows: int) -> Array:
    """Rows that cannot be dense: more than one expert by another column, or fewer active than total parameters."""
    sparse = np.zeros(rows, bool)
    for name in ("n_experts", "top_k", "expert_ratio", "expansion"):
        given = _floats(columns, name) if name in columns else None
        if given is not None:
            sparse |= np.nan_to_num(given) > 1
    total, active = (_floats(columns, name) if name in columns else None for name in ("params_total", "params_active"))
    if total is not None and active is not None:
        sparse |= active < 0.99 * total  # neither where one of the two is missing
    return sparse


def _floats(columns: Columns, name: str) -> Array | None:
    try:
        return numbers(columns[name], name)
    except InputError:
        return None
