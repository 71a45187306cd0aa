"""A table of runs as a fit needs it: a law's variables, what was measured, the runs' order, which repeat another."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import filled
from moelab.fitting.budget_groups import training_flops
from moelab.fitting.checks import check_numbers, check_variable, numbers
from moelab.fitting.columns import Columns, check_counts, columns_of, variable, variables
from moelab.fitting.run_kinds import moe_runs
from moelab.fitting.table_columns import quoted, setting_columns, suggestions
from moelab.fitting.table_runs import run_column, run_values
from moelab.fitting.text_units import bytes_per_token
from moelab.laws import Law
from moelab.laws.law import COUNTS, RATES, SHARES

Array = NDArray[Any]
DROP = '; drop them with --where "{}"'
MAP = "map one with --let '{} = ...'"
UNGROUPED = "none"
"""The group that asks for a bootstrap of single rows, whatever the table holds."""


@dataclass(frozen=True, eq=False)
class MeasuredErrors:
    """What is known of the error of each measured value, (n,) arrays: the variance of its logarithm, what one standard
    error of a quantity that all share moves it by, the degrees of freedom of both; another estimate with its own."""

    variance: Array
    shared: Array
    spare: Array
    other: Array
    other_variance: Array
    other_shared: Array

    def __getitem__(self, rows: Array) -> "MeasuredErrors":
        return MeasuredErrors(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Observations:
    """n runs ready for a fit: (n,) arrays, all finite; losses positive. `row` is the place in the table; `kinds` are
    dense or moe, where the table has a column for it; `bytes_per_token` is the tokenizer's, where the table has it;
    `units_note` is why it is not used."""

    variables: dict[str, Array]
    measured: Array
    weights: Array
    row: Array
    labels: Array
    kinds: Array
    order: Array | None = None
    flops: Array | None = None
    groups: Array | None = None
    replicates: Array | None = None
    errors: MeasuredErrors | None = None
    bytes_per_token: float | None = None
    units_note: str = ""

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def uneven_weights(self) -> Array | None:
        """The weights of the runs where they differ and are not those of their measured errors."""
        return None if self.errors is not None or np.ptp(self.weights) == 0 else self.weights

    def take(self, rows: Array) -> "Observations":
        """The chosen rows."""
        taken: dict[str, Any] = {"variables": {name: values[rows] for name, values in self.variables.items()}}
        for name in (f.name for f in fields(self) if f.name != "variables"):
            values = getattr(self, name)
            taken[name] = values if values is None or name in ("bytes_per_token", "units_note") else values[rows]
        return Observations(**taken)

    def seed_noise(self) -> dict[str, float] | None:
        """Spread of log loss between runs that differ in their seed only, pooled; None without such runs."""
        if self.replicates is None:
            return None
        _, index, counts = np.unique(self.replicates, return_inverse=True, return_counts=True)
        mean = np.bincount(index, np.log(self.measured)) / counts
        spare = int(np.sum(counts - 1))
        if not spare:
            return None
        spread = np.sqrt(np.sum((np.log(self.measured) - mean[index]) ** 2) / spare)
        return {"rel": float(spread), "n_groups": float(np.sum(counts > 1))}

    def noise_spare(self) -> int:
        """Degrees of freedom of `seed_noise`."""
        return 0 if self.replicates is None else len(self) - len(np.unique(self.replicates))


def observations(
    table: Any, law: Law, loss: str | None = None, group: str | None = None, weight: str | None = None
) -> Observations:
    """A table as a law needs it: blank experts are dense, and checkpoints are grouped by their run unless `group` names
    another column, or `none`. Raises InputError naming a missing column or the first bad value."""
    columns, _ = filled(columns_of(table))
    target = loss or law.kind
    if target not in columns:
        near = suggestions(columns).get("loss") if target == "loss" else None
        hint = f"; fit one with --loss {quoted(near[0])}" if near else ""
        raise InputError(
            f"{law.id}: the table has no column {target!r} to fit{hint}; its columns: {', '.join(columns)}"
        )
    measured = numbers(columns[target], target)
    if not len(measured):
        raise InputError(f"{law.id}: the table has no rows")
    check_counts(columns, law, _drop)
    found = variables(columns, law, _how_to_map(columns))
    check_numbers(target, measured, measured > 0, "must be positive", _drop(target))
    if len(measured) > 1 and np.ptp(measured) == 0:
        raise InputError(f"{target}: all {len(measured)} rows hold {measured[0]:g}, which identifies no coefficient")
    for name, values in found.items():
        check_variable(name, values, _drop(name))
    runs = run_column(columns) if group is None else None
    if group == UNGROUPED and group not in columns:
        group = None
    if group is not None and group not in columns:
        raise InputError(f"group: the table has no column {group!r}; its columns: {', '.join(columns)}")
    weights = np.ones_like(measured)
    if weight is not None:
        if weight not in columns:
            raise InputError(f"weight: the table has no column {weight!r}; its columns: {', '.join(columns)}")
        weights = numbers(columns[weight], weight)
        check_numbers(weight, weights, weights > 0, "must be positive", _drop(weight))
    if "expansion" in law.ranges and (expansion := variable(columns, "expansion")) is not None:
        found["expansion"] = expansion
    named = columns[group] if group else None if runs is None else run_values(columns, runs)
    groups = None if named is None else np.asarray([str(value) for value in named])
    order = compute_order(columns, found)
    if runs is not None and groups is not None and order is not None:
        order = _whole_runs(order, groups)
    names = columns.get("name", np.arange(1, len(measured) + 1))
    size, units_note = bytes_per_token(columns, measured, target)
    return Observations(
        variables=found,
        measured=measured,
        weights=weights,
        row=np.arange(len(measured)),
        labels=np.array([str(name) for name in names]),
        kinds=np.where(_is_moe(columns, law, len(measured)), "moe", "dense"),
        order=order,
        flops=training_flops(columns),
        groups=groups,
        replicates=_replicates(columns, found, target),
        bytes_per_token=size,
        units_note=units_note,
    )


def _drop(name: str) -> str:
    """How to leave out the rows whose value is missing or outside the range that the column can have."""
    column = quoted(name)
    if name in SHARES:
        return DROP.format(f"{column} >= 0 AND {column} < 1")
    if name in RATES:
        return DROP.format(f"{column} > 0 AND {column} <= 1")
    return DROP.format(f"{column} {'>= 1' if name in COUNTS else '> 0'}")


def _is_moe(columns: Columns, law: Law, size: int) -> Array:
    """(n,): the MoE runs, by their experts, or by fewer active than total parameters; without either, by the law."""
    ratio = variable(columns, "expert_ratio")
    if ratio is not None:
        return np.asarray(ratio > 1)
    if "expert_ratio" in law.optional:  # a table without it is one of dense runs to this law
        return np.zeros(size, bool)
    moe = None if law.separates_moe else moe_runs(columns)
    if moe is not None:
        return moe
    return np.full(size, law.covers_moe and (law.separates_moe or not law.covers_dense))


def _how_to_map(columns: Columns) -> str:
    """How to supply a missing variable: from the column that looks like it, where there is one; tokens from FLOPs."""
    near = {name: expression for name, (_, expression) in suggestions(columns).items() if name != "loss"}
    flops = "train_flops" if "train_flops" in columns else near.get("train_flops")
    size = next((n for n in ("params_active", "params_total") if n in columns), None)
    size = size or near.get("params_active") or near.get("params_total")
    if "tokens" not in columns and "tokens" not in near and flops and size:
        near["tokens"] = f"{flops} / (6 * {size})"
    lines = ", ".join(f"--let '{name} = {expression}'" for name, expression in near.items())
    return f"{MAP}; these columns look like it: {lines}" if lines else MAP


def _whole_runs(order: Array, groups: Array) -> Array:
    """Every checkpoint takes the place of its run's last one: a hold-out never parts them."""
    index = np.unique(groups, return_inverse=True)[1]
    last = np.zeros(int(index.max()) + 1)
    np.maximum.at(last, index, order)
    return np.asarray(last[index])


def compute_order(columns: Columns, found: Columns | None = None) -> Array | None:
    """What orders a hold-out: `train_flops`, else active (or total) parameters times tokens, else the parameters."""
    flops = variable(columns, "train_flops")
    if flops is not None and np.isfinite(flops).all():
        return flops
    for name in (
        "params_active",
        "params_active_non_embedding",
        "params_dense",
        "params_total",
        "params_non_embedding",
    ):
        params = variable({**columns, **(found or {})}, name)
        if params is not None:
            tokens = variable(columns, "tokens")
            return params if tokens is None else _product(params, tokens)
    return None


def _product(params: Array, tokens: Array) -> Array:
    """Parameters times tokens; where that overflows, in units of the most tokens: only the order and ratios count."""
    with np.errstate(over="ignore"):
        product = params * tokens
    return product if np.isfinite(product).all() else params * (tokens / np.max(tokens))


def _replicates(columns: Columns, found: Columns, target: str) -> Array | None:
    """A label per row, equal where runs differ in their seed and in no other column of the table.

    None for a table without seeds. Equal rows of one seed are no replicates: they differ in something not recorded.
    A column that labels every row, such as a run's name, is no setting.
    """
    if "seed" not in columns:
        return None
    settings = setting_columns(columns, target)
    keys = [[str(value) for value in columns[name]] for name in settings]
    keys += [[repr(float(value)) for value in values] for values in found.values()]
    seeds: dict[str, set[str]] = {}
    labels = ["|".join(parts) for parts in zip(*keys, strict=True)]
    for label, seed in zip(labels, columns["seed"], strict=True):
        seeds.setdefault(label, set()).add(str(seed))
    return np.array([label if len(seeds[label]) > 1 else f"{label}|row {row}" for row, label in enumerate(labels)])
