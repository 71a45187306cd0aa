"""From a table's columns to a law's variables: by name, by derivation, or a clear word about what is missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import check_numbers, check_variable, numbers
from moelab.laws import Law, all_laws

Array = NDArray[Any]
Columns = Mapping[str, Array]
Rule = tuple[tuple[str, ...], Callable[..., Array]]
DROP = "; drop them with --where"


def _dense_twin(n_ne: Array, a_ne: Array, experts: Array, k: Array) -> Array:
    one = (n_ne - a_ne) / np.maximum(experts - k, 1)
    return np.where(experts > k, a_ne - (k - 1) * one, a_ne)


RULES: dict[str, tuple[Rule, ...]] = {
    "sparsity": ((("n_experts", "top_k"), lambda e, k: 1 - k / e),),
    "expert_ratio": (
        (("n_experts", "top_k", "d_expert", "d_shared"), lambda e, k, d, s: (e * d + s) / (k * d + s)),
        (("n_experts", "top_k", "n_shared_experts"), lambda e, k, s: (e + s) / (k + s)),
        (("n_experts", "top_k"), lambda e, k: e / k),
        (("n_experts",), lambda e: e),
    ),
    "params_dense": (
        (("params_non_embedding", "params_active_non_embedding", "n_experts", "top_k"), _dense_twin),
    ),
    "active_experts": (
        (("top_k", "d_expert", "d_shared"), lambda k, d, s: k + s / d),
        (("top_k", "n_shared_experts"), lambda k, s: k + s),
        (("top_k",), lambda k: k),
    ),
    "shared_share": (
        (("top_k", "d_expert", "d_shared"), lambda k, d, s: s / (k * d + s)),
        (("top_k", "n_shared_experts"), lambda k, s: s / (k + s)),
    ),
    "expert_activation": (
        (("n_experts", "top_k", "d_expert", "d_shared"), lambda e, k, d, s: (k * d + s) / (e * d + s)),
        (("n_experts", "top_k", "n_shared_experts"), lambda e, k, s: (k + s) / (e + s)),
        (("n_experts", "top_k"), lambda e, k: k / e),
    ),
    "granularity_ling": ((("d_model", "d_expert"), lambda d, w: 2 * d / w),),
    "activation_rate": (
        (("params_active_non_embedding", "params_non_embedding"), lambda a, n: a / n),
    ),
    "unique_tokens": ((("tokens", "epochs"), lambda d, e: d / e),),
    "train_flops": ((("flops_per_token", "tokens"), lambda f, d: f * d),),
}  # fmt: skip
"""Variables that follow from other columns, tried in order.

Without widths, a shared expert counts as wide as a routed one."""


def check_names(names: Sequence[str], law: Law) -> None:
    """Raises InputError for a name that no law and no rule knows, with the nearest that this law takes.

    A name of another law is let through: one command may ask several laws.
    """
    own = {*law.variables, *law.ranges}
    own |= {need for name in law.variables for needs, _ in RULES.get(name, ()) for need in needs}
    known = own | set(RULES) | {need for rules in RULES.values() for needs, _ in rules for need in needs}
    for other in all_laws().values():
        known |= {*other.variables, *other.ranges}
    for name in names:
        if name not in known:
            near = get_close_matches(name, sorted(own), 1, 0.75) or get_close_matches(name, sorted(known), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"set: no law knows a variable {name!r}{hint} ({law.id} takes {', '.join(sorted(own))})")


def columns_of(table: Any) -> dict[str, Array]:
    """The columns of a data frame, a mapping, a list of rows, or a file or folder of runs. Raises InputError."""
    if isinstance(table, str | Path):
        from moelab.runs.table import load_table  # polars takes a third of a second to load; a plan needs none

        table = load_table(table)
    if hasattr(table, "get_columns"):
        return {series.name: series.to_numpy() for series in table.get_columns()}
    if hasattr(table, "columns") and hasattr(table, "__getitem__"):
        return {str(name): np.asarray(table[name]) for name in table.columns}
    if isinstance(table, Mapping):
        return {str(name): np.atleast_1d(np.asarray(values)) for name, values in table.items()}
    if isinstance(table, Sequence) and table and all(isinstance(row, Mapping) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        return {str(name): np.array([row.get(name, np.nan) for row in table]) for name in names}
    raise InputError(f"table: expected a data frame, columns by name or a list of rows, got {type(table).__name__}")


def variable(columns: Columns, name: str) -> Array | None:
    """A variable as floats: its column, or derived from others; None where neither is there."""
    if name in columns:
        return numbers(columns[name], name)
    for needs, rule in RULES.get(name, ()):
        if all(need in columns for need in needs):
            return np.asarray(rule(*(numbers(columns[need], need) for need in needs)), float)
    return None


def variables(columns: Columns, law: Law, hint: str = "map one with --let '{} = ...'") -> dict[str, Array]:
    """All variables of a law. Raises InputError naming the missing columns and, by `hint`, how to supply one."""
    check_experts(columns)
    found = {name: variable(columns, name) for name in law.variables}
    missing = [name for name, values in found.items() if values is None]
    if missing:
        name = missing[0]
        from_others = [" and ".join(needs) for needs, _ in RULES.get(name, ())]
        derived = f" (or {', or '.join(from_others)})" if from_others else ""
        raise InputError(
            f"{law.id}: no column for {', '.join(missing)}{derived}; {hint.format(name)}; columns: {', '.join(columns)}"
        )
    return {name: values for name, values in found.items() if values is not None}


def check_experts(columns: Columns) -> None:
    """Raises InputError where more experts are chosen than there are."""
    if "n_experts" not in columns or "top_k" not in columns:
        return
    chosen, there = numbers(columns["top_k"], "top_k"), numbers(columns["n_experts"], "n_experts")
    try:
        wrong = np.flatnonzero(np.greater(chosen, there))
    except ValueError:
        return  # of different lengths, which is refused by name later on
    if len(wrong):
        chosen, there = np.broadcast_arrays(chosen, there)
        at = f" (row {wrong[0] + 1})" if len(chosen) > 1 else ""
        raise InputError(f"top_k: {chosen[wrong[0]]:g} experts cannot be chosen of {there[wrong[0]]:g}{at}")


@dataclass(frozen=True, eq=False)
class Observations:
    """n runs ready for a fit: (n,) arrays, all finite; losses positive. `row` is the place in the table; `kinds` are
    dense or moe, where the table tells."""

    variables: dict[str, Array]
    measured: Array
    weights: Array
    row: Array
    labels: Array
    kinds: Array
    order: Array | None = None
    groups: Array | None = None
    replicates: Array | None = None

    def __len__(self) -> int:
        return len(self.measured)

    def take(self, rows: Array) -> "Observations":
        """The chosen rows."""
        taken: dict[str, Any] = {"variables": {name: values[rows] for name, values in self.variables.items()}}
        for name in (f.name for f in fields(self) if f.name != "variables"):
            values = getattr(self, name)
            taken[name] = None if values is None else values[rows]
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


def observations(
    table: Any, law: Law, loss: str | None = None, group: str | None = None, weight: str | None = None
) -> Observations:
    """A table as a law needs it. Raises InputError naming a missing column or the first bad value."""
    columns = columns_of(table)
    target = loss or law.kind
    if target not in columns:
        raise InputError(f"{law.id}: the table has no column {target!r} to fit; its columns: {', '.join(columns)}")
    measured = numbers(columns[target], target)
    if not len(measured):
        raise InputError(f"{law.id}: the table has no rows")
    found = variables(columns, law)
    check_numbers(target, measured, measured > 0, "must be positive", DROP)
    if len(measured) > 1 and np.ptp(measured) == 0:
        raise InputError(f"{target}: all {len(measured)} rows hold {measured[0]:g}: that identifies nothing")
    for name, values in found.items():
        check_variable(name, values, DROP)
    if group is not None and group not in columns:
        raise InputError(f"group: the table has no column {group!r}; its columns: {', '.join(columns)}")
    weights = np.ones_like(measured)
    if weight is not None:
        if weight not in columns:
            raise InputError(f"weight: the table has no column {weight!r}; its columns: {', '.join(columns)}")
        weights = numbers(columns[weight], weight)
        check_numbers(weight, weights, weights > 0, "must be positive", DROP)
    if "expansion" in law.ranges and (expansion := variable(columns, "expansion")) is not None:
        found["expansion"] = expansion
    groups = None if group is None else np.asarray([str(value) for value in columns[group]])
    ratio = variable(columns, "expert_ratio")
    names = columns.get("name", np.arange(1, len(measured) + 1))
    return Observations(
        variables=found,
        measured=measured,
        weights=weights,
        row=np.arange(len(measured)),
        labels=np.array([str(name) for name in names]),
        kinds=np.where(np.full(len(measured), law.covers_moe) if ratio is None else ratio > 1, "moe", "dense"),
        order=compute_order(columns, found),
        groups=groups,
        replicates=_replicates(columns, found, target),
    )


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


OUTCOMES = {
    "id", "run_id", "name", "seed", "replicate", "status", "bits_per_byte", "train_loss", "seconds",
    "tokens_per_second", "peak_memory_bytes", "resumed", "spikes", "stopped_at", "device", "threads", "processes",
    "dispatch", "parent_run",
}  # fmt: skip
MEASURED = ("loss", "routing_")
"""Columns by name, and by how they begin, that a run's settings do not decide or that its seed may change."""


def _replicates(columns: Columns, found: Columns, target: str) -> Array | None:
    """A label per row, equal where runs differ in their seed and in nothing else that the table tells of them.

    None for a table without seeds. Runs of one seed alone are no replicates: something untold sets them apart.
    """
    if "seed" not in columns:
        return None
    settings = [n for n in columns if n not in OUTCOMES and n != target and not n.startswith(MEASURED)]
    keys = [[str(value) for value in columns[name]] for name in settings]
    keys += [[repr(float(value)) for value in values] for values in found.values()]
    seeds: dict[str, set[str]] = {}
    labels = ["|".join(parts) for parts in zip(*keys, strict=True)]
    for label, seed in zip(labels, columns["seed"], strict=True):
        seeds.setdefault(label, set()).add(str(seed))
    return np.array([label if len(seeds[label]) > 1 else f"{label}|row {row}" for row, label in enumerate(labels)])
