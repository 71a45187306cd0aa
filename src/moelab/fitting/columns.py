"""From a table's columns to a law's variables, by name or by derivation. A missing one is refused by its name."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import check_variable, numbers
from moelab.laws import Law, all_laws

Array = NDArray[Any]
Columns = Mapping[str, Array]
Rule = tuple[tuple[str, ...], Callable[..., Array]]


def _dense_params(n_ne: Array, a_ne: Array, experts: Array, k: Array) -> Array:
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
        (("params_non_embedding", "params_active_non_embedding", "n_experts", "top_k"), _dense_params),
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
    "granularity": (
        (("top_k", "d_expert", "d_shared"), lambda k, d, s: k + s / d),
        (("top_k", "n_shared_experts"), lambda k, s: k + s),
        (("top_k",), lambda k: k),
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
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray(rule(*(numbers(columns[need], need) for need in needs)), float)
    return None


def read_from(columns: Columns, name: str) -> set[str]:
    """The columns that `variable` reads; none where it is not there."""
    if name in columns:
        return {name}
    rules = (needs for needs, _ in RULES.get(name, ()))
    return set(next((needs for needs in rules if all(need in columns for need in needs)), ()))


def numeric(columns: Columns, name: str) -> Array | None:
    """`variable`, and None for a column that holds anything but numbers, too."""
    try:
        return variable(columns, name)
    except InputError:
        return None


def finite_numbers(columns: Columns, name: str) -> Array | None:
    """The finite numbers of a column or of what it follows from; None for text or where there are none."""
    values = numeric(columns, name)
    values = None if values is None else values[np.isfinite(values)]
    return values if values is not None and len(values) else None


def positive_numbers(columns: Columns, name: str) -> Array | None:
    """A variable whose logarithm is taken: its numbers, NaN where they are not positive; None for text or for none."""
    values = numeric(columns, name)
    if values is None or not (values > 0).any():
        return None
    return np.where(values > 0, values, np.nan)


def variables(columns: Columns, law: Law, hint: str) -> dict[str, Array]:
    """All variables of a law. Raises InputError naming the missing columns and, by `hint`, how to supply one."""
    check_experts(columns)
    found = {name: variable(columns, name) for name in law.variables}
    present = law.with_optional({name: values for name, values in found.items() if values is not None})
    missing = [name for name in law.variables if name not in present]
    if missing:
        name = missing[0]
        from_others = [" and ".join(needs) for needs, _ in RULES.get(name, ())]
        derived = f" (or {', or '.join(from_others)})" if from_others else ""
        how = hint.replace("{}", name, 1)
        raise InputError(f"{law.id}: no column for {', '.join(missing)}{derived}; {how}; columns: {', '.join(columns)}")
    return _seen_tokens({name: present[name] for name in law.variables})


def _seen_tokens(found: dict[str, Array]) -> dict[str, Array]:
    """The variables with at most as many distinct tokens as tokens: a run sees no more of a larger corpus."""
    tokens, unique = found.get("tokens"), found.get("unique_tokens")
    if tokens is None or unique is None or len({len(tokens), len(unique)} - {1}) > 1:
        return found
    return {**found, "unique_tokens": np.where(unique > tokens, tokens, unique)}


def check_counts(columns: Columns, law: Law, hint: Callable[[str], str] = lambda name: "") -> None:
    """Raises InputError where a number of experts that the law's variables are read from is below one, or one of those
    in use not positive, by the column's own name; blanks are left to the variables."""
    read = {each for name in law.variables for each in read_from(columns, name)}
    for name in ("n_experts", "top_k"):
        if name in read:
            values = numbers(columns[name], name)
            check_variable(name, np.where(np.isfinite(values), values, 1.0), hint(name))


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
