"""Which runs share a compute: by a column that names budgets, or by gaps in their training FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.columns import variable
from moelab.fitting.table_columns import codes, suggestions
from moelab.quantities import format_flops

Array = NDArray[Any]
TOLERANCE = 0.03
"""Relative gap of training FLOPs from which runs belong to another budget."""
BUDGET = "budget"


FEWEST = 4
"""Runs that a slice needs at least."""


@dataclass(frozen=True, eq=False)
class Groups:
    """n runs in groups: (n,) `index` from the smallest compute, (n,) `flops`, and the groups' `names`, empty where
    their FLOPs name them."""

    index: Array
    flops: Array
    names: tuple[str, ...] = ()


def budget_groups(columns: Mapping[str, Array], by: str = BUDGET, tolerance: float = TOLERANCE) -> Groups:
    """The groups of a table's runs. A column named `by` decides; else the runs' FLOPs do, a gap of more than
    `tolerance` beginning another budget. Raises InputError where neither is there, and where no group has enough runs
    for a slice."""
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: must be above 0 and below 1, got {tolerance:g}")
    flops = training_flops(columns)
    if by in columns:
        return _by_column(columns, by, flops)
    if by != BUDGET:
        raise InputError(f"by: the table has no column {by!r}; its columns: {', '.join(columns)}")
    if flops is None:
        raise InputError(
            f"by: the runs have no train_flops (or parameters and tokens) to find their budgets from{_mapped(columns)}"
        )
    order = np.argsort(flops, kind="stable")
    gaps = np.diff(flops[order]) > tolerance * flops[order][:-1]
    group = np.empty(len(flops), int)
    group[order] = np.concatenate([[0], np.cumsum(gaps)])
    if np.bincount(group).max() < FEWEST:
        raise InputError(
            f"by: {len(flops)} runs in {int(group.max()) + 1} budgets, at most {np.bincount(group).max()} in one; a "
            f"slice needs {FEWEST}; runs whose FLOPs differ more than --tolerance {tolerance:g} are of two budgets"
        )
    return Groups(group, flops)


def _by_column(columns: Mapping[str, Array], by: str, flops: Array | None) -> Groups:
    """Groups of equal values; of numbers that name no budget and of text the values are the groups' names."""
    index, values = codes(np.asarray(columns[by]))
    most = int(np.bincount(index).max())
    if most < FEWEST:
        jitter = f"; --by {BUDGET} takes runs of nearly equal FLOPs together" if flops is not None else ""
        raise InputError(
            f"by: {by} has {len(values)} values in {len(index)} runs, none of them in {FEWEST} or more, which a slice "
            f"needs{jitter}"
        )
    scale = numbers(columns[by], by) if flops is None else flops
    middle = np.array([np.median(scale[index == k]) for k in range(len(values))])
    order = np.lexsort((np.arange(len(values)), middle))
    place = np.argsort(order)
    counted = values.dtype.kind in "fiu"
    names = () if counted and by in (BUDGET, "train_flops") else _names(values[order])
    return Groups(place[index], middle[index], names)


def _names(values: Array) -> tuple[str, ...]:
    """Distinct values as text, numbers with no more digits than keep them distinct."""
    if values.dtype.kind not in "fiu":
        return tuple(str(value) for value in values)
    few, many = (tuple(format_flops(float(value), digits) for value in values) for digits in (6, 17))
    return few if len(set(few)) == len(values) else many


def _mapped(columns: Mapping[str, Array]) -> str:
    """The option that gives the runs FLOPs, where a column looks like them."""
    near = suggestions(columns)
    found = [f"--let '{name} = {near[name][1]}'" for name in ("train_flops", "tokens") if name in near]
    return f"; {found[0]}" if found else ""


def training_flops(columns: Mapping[str, Array]) -> Array | None:
    """The runs' training FLOPs (n,): `train_flops`, else 6 x active (or total) parameters x tokens; else None."""
    flops = variable(columns, "train_flops")
    if flops is not None:
        return flops
    active, tokens = (variable(columns, name) for name in ("params_active", "tokens"))
    active = variable(columns, "params_total") if active is None else active
    return None if active is None or tokens is None else 6 * active * tokens


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
