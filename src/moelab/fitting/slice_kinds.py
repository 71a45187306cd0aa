"""Slices of several architectures in one table: values of a column that each have their own, and dense beside MoE."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.budget_groups import FEWEST, budget_groups
from moelab.fitting.columns import variable
from moelab.fitting.run_kinds import dense_runs, opposite

Array = NDArray[Any]
SEPARATE = ("n_experts", "expert_ratio", "activation_rate", "sparsity", "top_k", "granularity", "expert_activation")
"""Columns of the architecture: each of their values has a slice of its own."""

FEWEST_POINTS = 4
"""Values of the axis that make a slice."""


def mixed_notes(columns: Mapping[str, Array], x: str, by: str | None) -> list[str]:
    """A note where the runs are slices of several architectures.

    First the columns whose values hold a slice each; then dense and MoE runs, and columns of the architecture, that
    vary on one slice without following the axis.
    """
    axis = variable(columns, x)
    if axis is None:
        return []
    groups = _groups(columns, by, len(axis))
    for name in SEPARATE:
        values = variable(columns, name) if name in columns and name not in (x, by) else None
        if values is None:
            continue
        kinds = np.unique(values[np.isfinite(values)])
        if len(kinds) < 2 or min(len(np.unique(axis[values == kind])) for kind in kinds) < FEWEST_POINTS:
            continue
        mend = f"take each with --by {name}" if by is None else f'keep one with --where "{name} = {kinds[0]:g}"'
        return [f"{name} has {len(kinds)} values, each with a slice of its own in {x}: {mend}"]
    return _dense_beside_moe(columns, x, axis, groups) or _entangled(columns, x, by, axis, groups)


def _groups(columns: Mapping[str, Array], by: str | None, n: int) -> Array:
    """The slice of each run (n,): one of all, or by the runs' budgets; each run's own where those make no slice."""
    if by is None:
        return np.zeros(n, int)
    try:
        return budget_groups(columns, by).index
    except InputError:
        return np.arange(n)


def _dense_beside_moe(columns: Mapping[str, Array], x: str, axis: Array, groups: Array) -> list[str]:
    found = dense_runs(columns)
    if found is None or not 0 < found[0].sum() < len(axis) or not _crosses(axis, found[0].astype(float), groups):
        return []
    dense, condition = found
    most = min(int(np.bincount(groups[kind]).max()) for kind in (dense, ~dense))
    few = f"; at most {most} of a kind share a slice, which needs {FEWEST}" if most < FEWEST else ""
    return [
        f"{int(dense.sum())} dense and {int((~dense).sum())} MoE runs lie on one curve in {x}, and each kind has a "
        f'slice of its own: keep one with --where "{condition}" or --where "{opposite(condition)}"{few}'
    ]


def _entangled(columns: Mapping[str, Array], x: str, by: str | None, axis: Array, groups: Array) -> list[str]:
    """The first column of the architecture that goes up and down along a slice."""
    for name in SEPARATE:
        values = variable(columns, name) if name in columns and name not in (x, by) else None
        if values is None or not np.isfinite(values).all() or not _crosses(axis, values, groups):
            continue
        kinds, counts = np.unique(values, return_counts=True)
        most = kinds[np.argmax(counts)]
        return [
            f"{name} has {len(kinds)} values on one curve in {x}, which it does not follow: keep one with "
            f'--where "{name} = {most:g}"'
        ]
    return []


def _crosses(axis: Array, values: Array, groups: Array) -> bool:
    """Whether the values rise and fall along the axis within some slice."""
    for group in np.unique(groups):
        inside = groups == group
        order = np.lexsort((values[inside], axis[inside]))
        steps = np.diff(values[inside][order])
        if (steps > 0).any() and (steps < 0).any():
            return True
    return False
