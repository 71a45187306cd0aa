"""Slices of several architectures in one table: values of a column that each have their own, and dense beside MoE."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import DENSE
from moelab.fitting.budget_groups import FEWEST, budget_groups
from moelab.fitting.columns import variable

Array = NDArray[Any]
SEPARATE = ("n_experts", "expert_ratio", "activation_rate", "sparsity", "top_k", "granularity", "expert_activation")
"""Columns of the architecture: each of their values has a slice of its own."""

FEWEST_POINTS = 4
"""Values of the axis that make a slice."""

MOE = {
    "n_experts": "n_experts > 1", "expert_ratio": "expert_ratio > 1", "activation_rate": "activation_rate < 1",
    "sparsity": "sparsity > 0", "expert_activation": "expert_activation < 1",
}  # fmt: skip
"""Columns that distinguish dense from MoE runs, and the condition that keeps the MoE runs."""


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
    found = _dense_runs(columns)
    if found is None or not _crosses(axis, found[0].astype(float), groups):
        return []
    dense, condition = found
    most = min(int(np.bincount(groups[kind]).max()) for kind in (dense, ~dense))
    few = f"; at most {most} of a kind share a slice, which needs {FEWEST}" if most < FEWEST else ""
    return [
        f"{int(dense.sum())} dense and {int((~dense).sum())} MoE runs lie on one curve in {x}, and each kind has a "
        f'slice of its own: keep one with --where "{condition}" or --where "{_opposite(condition)}"{few}'
    ]


def _opposite(condition: str) -> str:
    return condition.replace(" > ", " <= ") if " > " in condition else condition.replace(" < ", " >= ")


def _dense_runs(columns: Mapping[str, Array]) -> tuple[Array, str] | None:
    """Which runs are dense (n,), and the condition that keeps the others; None where there are no two kinds."""
    for name, condition in MOE.items():
        values = variable(columns, name) if name in columns else None
        if values is not None and np.isfinite(values).all():
            dense = values <= DENSE[name] if ">" in condition else values >= DENSE[name]
            break
    else:
        active, total = (variable(columns, name) for name in ("params_active", "params_total"))
        if active is None or total is None or not {"params_active", "params_total"} <= set(columns):
            return None
        dense, condition = active > 0.99 * total, "params_active < 0.99 * params_total"
    return (dense, condition) if 0 < dense.sum() < len(dense) else None


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
