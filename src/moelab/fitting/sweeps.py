"""A table of sweeps as one row per design: its best learning rate or batch, with the error of that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import numbers
from moelab.fitting.columns import Columns, variable
from moelab.fitting.observations import MeasuredErrors
from moelab.fitting.sweep_optimum import FAR, SweepOptima, Tried, diverged, sweep_optima, tried_values
from moelab.fitting.table_columns import SWEPT, following, row_groups, setting_columns
from moelab.laws.law import Law
from moelab.laws.rule_forms import ACTIVATION, RATE

Array = NDArray[Any]
_ORDER = ("train_flops", "params_non_embedding", "tokens")
"""What orders a hold-out, beside the law's variables."""


class NoOptimum(InputError):
    """No design of a sweep bounds its best value."""


@dataclass(frozen=True, kw_only=True)
class DesignOptimum:
    """One design's best value with its 80 % interval; an end is None where the sweep does not bound it there. `edge` is
    `below` or `above` where the best value lies beyond those tried, `on either side` where two at most did not diverge;
    `value` is then the outermost. `row` is that of the best run, from 1."""

    design: dict[str, float]
    value: float
    low: float | None
    high: float | None
    edge: str | None
    row: int


@dataclass(frozen=True, kw_only=True)
class Sweeps:
    """`columns` of the designs with a bounded optimum, one row each, with the table's `rows` of their best runs (from
    0) and the `errors` of the optima; `designs` are all that were swept."""

    columns: dict[str, Array]
    rows: list[int]
    errors: MeasuredErrors | None
    designs: tuple[DesignOptimum, ...]
    notes: list[str]


def sweeps_of(columns: Columns, law: Law, quantity: str, target: str) -> Sweeps:
    """The best value of `quantity` for each design of a table.

    A design whose best value lies at or beyond the smallest or largest tried has no bounded optimum and is left out, as
    is one with a single value; where no design has two, the table is one of optima. Raises InputError for a missing
    column, NoOptimum where no design has a bounded optimum.
    """
    found = _variables(columns, law, target)
    values, losses = numbers(columns[quantity], quantity), numbers(columns[target], target)
    _check_values(quantity, values, target, losses)
    settings = setting_columns(columns, target)
    moved = following(columns, settings)
    swept = [name for name in SWEPT if name not in law.variables]
    label = row_groups(columns, [name for name in settings if name not in swept and name not in moved])
    losses, repeats = _mean_of_seeds(columns, label, losses)
    designs = [np.flatnonzero(label == group) for group in range(int(label.max()) + 1)]
    single = [len(np.unique(values[rows])) == 1 for rows in designs]
    order = {name: column for name in _ORDER if (column := variable(columns, name)) is not None}
    known = {**order, **found}
    notes = []
    if moved:
        notes.append(f"{', '.join(moved)}: follows what is swept, and separates no designs")
    if repeats:
        notes.append(f"{repeats} rows repeat the settings of another one: the mean loss of such rows is taken")
    if all(single):
        best = [int(rows[np.argmin(losses[rows])]) for rows in designs]
        notes.insert(0, f"no design has two values of {quantity}: each one's value is taken as its best")
        optima = {**{name: np.asarray(column, float)[best] for name, column in known.items()}, quantity: values[best]}
        return Sweeps(columns=optima, rows=best, errors=None, designs=(), notes=notes)
    used = [rows for rows, one in zip(designs, single, strict=True) if not one]
    upward = quantity == RATE
    high = sum(int(diverged(values[rows], losses[rows], upward).sum()) for rows in used)
    tried = [tried_values(values[rows], losses[rows], upward) for rows in used]
    optima, rows, errors, shown = _optima(used, tried, known, values, losses, law, quantity)
    left = len(used) - len(rows)
    count = len(designs)
    before = [f"{left} of {count} designs have their best {quantity} at the edge of the sweep: left out"] * (left > 0)
    if any(single):
        before.append(f"{sum(single)} of {count} designs have one {quantity} only, which shows no best one: left out")
    if high:
        before.append(f"{high} runs lie {FAR:.0%} or more above their design's least {target}: no optimum is from them")
    return Sweeps(columns=optima, rows=rows, errors=errors, designs=shown, notes=[*before, *notes])


def _variables(columns: Columns, law: Law, target: str) -> dict[str, Array]:
    if target not in columns:
        raise InputError(f"{target}: the table has no such column; its columns: {', '.join(columns)}")
    found = {name: variable(columns, name) for name in law.variables}
    if missing := [name for name, values in found.items() if values is None]:
        activated = ACTIVATION in law.id and ACTIVATION[1:] + "_rate" in missing
        leave = f", or leave out {ACTIVATION} where all runs share one rate" if activated else ""
        raise InputError(
            f"{law.id}: no column for {', '.join(missing)}; map one with --let '{missing[0]} = ...'{leave}"
        )
    return {name: values for name, values in found.items() if values is not None}


def _check_values(quantity: str, values: Array, target: str, losses: Array) -> None:
    if not (values > 0).all():
        logs = f"; are these logarithms? --let '{quantity} = POW(10, {quantity})'" if values.max() < 0 else ""
        raise InputError(f"{quantity}: must be positive, got {values.min():g}{logs}")
    if not (losses > 0).all():
        row = int(np.flatnonzero(~(losses > 0))[0])
        raise InputError(
            f'{target}: must be positive; row {row + 1} holds {losses[row]:g}; drop it with --where "{target} > 0"'
        )


def _optima(
    used: Sequence[Array],
    tried: Sequence[Tried | None],
    known: dict[str, Array],
    values: Array,
    losses: Array,
    law: Law,
    quantity: str,
) -> tuple[dict[str, Array], list[int], MeasuredErrors, tuple[DesignOptimum, ...]]:
    """Columns, best rows and errors of the designs with an optimum; every design's optimum with its interval."""
    swept = [each for each in tried if each is not None]
    found = sweep_optima(swept) if swept else None
    if found is None:
        raise NoOptimum(
            f"{quantity}: the losses rise on both sides of a best value in no design, beyond their noise: sweep further"
        )
    other = sweep_optima(swept, neighbours=True) or found
    best = [int(rows[np.argmin(losses[rows])]) for rows in used]
    places = np.flatnonzero([each is not None for each in tried])
    shown = [_unbounded({name: float(known[name][row]) for name in law.variables}, values[row], row) for row in best]
    for k, place in enumerate(places):
        shown[place] = _shown(shown[place], found, other, k)
    inside = np.flatnonzero(found.edge == 0)
    if not len(inside):
        raise NoOptimum(f"{quantity}: every design has its best value at the edge of its sweep: sweep further")
    kept = [best[place] for place in places[inside]]
    optima = {name: np.asarray(column, float)[kept] for name, column in known.items()}
    optima[quantity] = np.exp(found.at[inside])
    errors = MeasuredErrors(
        variance=found.variance[inside],
        shared=found.shared[inside],
        spare=np.full(len(inside), found.spare),
        other=other.at[inside],
        other_variance=other.variance[inside],
        other_shared=other.shared[inside],
    )
    return optima, kept, errors, tuple(shown)


def _unbounded(design: dict[str, float], value: float, row: int) -> DesignOptimum:
    """A design of which two values at most did not diverge: neither end is bounded."""
    return DesignOptimum(design=design, value=float(value), low=None, high=None, edge="on either side", row=row + 1)


def _shown(empty: DesignOptimum, found: SweepOptima, other: SweepOptima, k: int) -> DesignOptimum:
    """The interval by both windows, open where it passes what was tried."""
    from scipy.special import stdtrit

    least, most = found.tried[k]
    ends = []
    for each in (found, other):
        half = float(stdtrit(each.spare, 0.9) * np.hypot(np.sqrt(each.variance[k]), each.shared[k]))
        ends += [float(each.at[k]) - half, float(each.at[k]) + half]
    low, high = min(ends), max(ends)
    edge = {-1: "below", 0: None, 1: "above"}[int(found.edge[k])]
    return DesignOptimum(
        design=empty.design,
        value=float(np.exp({"below": least, "above": most}.get(edge or "", found.at[k]))),
        low=None if edge == "below" or low < least else float(np.exp(low)),
        high=None if edge == "above" or high > most else float(np.exp(high)),
        edge=edge,
        row=empty.row,
    )


def _mean_of_seeds(columns: Columns, label: Array, losses: Array) -> tuple[Array, int]:
    """Losses (n,) as the mean of the rows of one design that agree in all that is swept, and how many rows repeat
    another one. The least of several seeds would be lower wherever more of them ran."""
    swept = [name for name in SWEPT if name in columns]
    cell = row_groups({**{name: columns[name] for name in swept}, "design": label}, [*swept, "design"])
    counts = np.bincount(cell)
    return (np.bincount(cell, losses) / counts)[cell], len(cell) - len(counts)
