"""Which runs share a compute: by a column that names budgets, or by gaps in their training FLOPs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.columns import variable

Array = NDArray[Any]
TOLERANCE = 0.03
"""Relative gap of training FLOPs from which runs belong to another budget."""
BUDGET = "budget"


def budget_groups(columns: Mapping[str, Array], by: str = BUDGET, tolerance: float = TOLERANCE) -> tuple[Array, Array]:
    """(n,) group numbers from the smallest budget and (n,) FLOPs. A column named `by` decides; else the runs' FLOPs do,
    a gap of more than `tolerance` beginning another budget. Raises InputError where neither is there."""
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: must be above 0 and below 1, got {tolerance:g}")
    flops = variable(columns, "train_flops")
    if flops is None:
        active, tokens = (variable(columns, name) for name in ("params_active", "tokens"))
        active = variable(columns, "params_total") if active is None else active
        flops = None if active is None or tokens is None else 6 * active * tokens
    if by in columns:
        labels = np.array([str(value) for value in columns[by]])
        index = np.unique(labels, return_inverse=True)[1]
        scale = numbers(columns[by], by) if flops is None else flops
        middle = np.array([np.median(scale[index == k]) for k in range(int(index.max()) + 1)])
        return np.argsort(np.argsort(middle, kind="stable"), kind="stable")[index], middle[index]
    if by != BUDGET:
        raise InputError(f"by: the table has no column {by!r}; its columns: {', '.join(columns)}")
    if flops is None:
        raise InputError("by: the runs have no train_flops (or parameters and tokens) to find their budgets from")
    order = np.argsort(flops, kind="stable")
    gaps = np.diff(flops[order]) > tolerance * flops[order][:-1]
    group = np.empty(len(flops), int)
    group[order] = np.concatenate([[0], np.cumsum(gaps)])
    return group, flops


ONE_COMPUTE = 1.2
"""Largest ratio of training FLOPs among runs that count as runs of one compute."""


def compute_notes(columns: Mapping[str, Array]) -> list[str]:
    """A word where the runs are not of one compute: the lowest loss then follows the compute, not the axis."""
    flops, most = variable(columns, "train_flops"), ONE_COMPUTE
    if flops is None:
        active, tokens = variable(columns, "params_active"), variable(columns, "tokens")
        active = variable(columns, "params_total") if active is None else active
        if active is None or tokens is None:
            return []
        flops, most = active * tokens, 2.0  # leaves out attention, router and head
    flops = flops[np.isfinite(flops) & (flops > 0)]
    if not len(flops) or flops.max() <= most * flops.min():
        return []
    return [
        f"the runs are not of one compute: it spans a factor of {flops.max() / flops.min():.3g}, so this is no "
        "optimum at fixed compute; keep one budget with --where, or take each with --by budget"
    ]
