"""Rules for learning rate and batch fitted to a sweep: the optimum of each design, then a power law through them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.files import read_json, write_json
from moelab.fitting.checks import numbers
from moelab.fitting.columns import Columns, columns_of, variable
from moelab.fitting.compare import fit_with_holdout
from moelab.fitting.fit import fit
from moelab.fitting.fit_file import fit_from_json, fit_to_json
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.observations import UNGROUPED
from moelab.fitting.sweep_optimum import FAR, diverged, sweep_optimum
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import SWEPT, following, plain, present, quoted, row_groups, setting_columns
from moelab.fitting.table_rows import measured_runs
from moelab.laws.law import Law
from moelab.laws.rule_forms import ACTIVATION, RATE, rule_laws
from moelab.notebook import Shown, short_repr

Array = NDArray[Any]
_CHECKED = ("missing", "units", "flops", "copies", "texts", "diverged", "running", "blanks")
"""Checks of a table whose findings change the optimum of a sweep."""
_ALSO = ("learning_rate", "batch_tokens", "tokens_per_batch", "batch_size_tokens")
OBJECTIVE = "squared"
"""Optima scatter by tens of per cent, beyond any Huber threshold that suits losses."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedRule(Shown):
    """A rule's form fitted to a sweep: `fits` has a FittedLaw by quantity (learning_rate, batch_tokens)."""

    rule: str
    fits: dict[str, FittedLaw]

    def __repr__(self) -> str:
        return short_repr(self, rule=self.rule, quantities=tuple(self.fits))

    def predict(self, values: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """By quantity: value, low and high (p10, p90), and extrapolation, for one design's variables."""
        found = {}
        for quantity, fitted in self.fits.items():
            one = fitted.predict({name: [values[name]] for name in fitted.law.variables})
            ends = {"value": one.value, "low": one.low, "high": one.high, "extrapolation": one.extrapolation}
            found[quantity] = {name: float(end[0]) for name, end in ends.items()}
        return found


def fit_rule(
    table: Any,
    rule: str,
    *,
    loss: str | None = None,
    holdout: float | None = None,
    holdout_by: str | None = None,
    holdout_rows: Any = None,
    group: str | None = None,
    **options: Any,
) -> FittedRule:
    """Fit a rule's form to a sweep of learning rates or batches.

    Args:
        table: Runs with a loss, learning_rate or batch_tokens (or both), and the rule's variables. Runs that agree in
            every other setting are one sweep; its optimum is that of a parabola in ln value around the best run.
        rule: steplaw2025, tian2025-moe, marin2026, ..., or that with +activation.
        loss: The column of the loss; None: loss.
        holdout: Share of the largest-compute optima to hold out; None: a fifth where that leaves enough; 0: none.
        holdout_by: A column: leave out each of its values in turn.
        holdout_rows: One true or false per row: the designs whose best run is true are held out.
        group: A column whose groups of designs the bootstrap resamples whole; None: single designs.
        **options: As in `moelab.fit`: fix, share, weight, bootstrap, seed, starts, objective (squared by default).

    Raises:
        InputError: Neither quantity is swept, a variable is missing, or too few designs have an optimum.
    """
    target = loss or "loss"
    checked = [str(finding) for finding in check_table(table, target) if finding.check in _CHECKED]
    table, kept, _ = measured_runs(table, target)
    if holdout_rows is not None and kept is not None:
        holdout_rows = np.asarray(holdout_rows, bool)[kept]
    columns = columns_of(table)
    laws = {quantity: law for quantity, law in rule_laws(rule).items() if quantity in columns}
    near = {name: how for name in rule_laws(rule) if name not in columns and (how := _near(columns, name))}
    if not laws:
        hint = f"; {', '.join(near.values())}" if near else ""
        raise InputError(f"{rule}: the table has no column {' or '.join(rule_laws(rule))} to fit{hint}")
    checked += [f"no column {name}, which is not fitted; {how}" for name, how in near.items()]
    fits = {}
    for quantity, law in laws.items():
        optima, others, rows, notes = sweep_optima(columns, law, quantity, target)
        beside = {name: np.asarray(column)[rows] for name, column in columns.items() if name not in optima}
        options = {"objective": OBJECTIVE, **options}
        fitted = fit_with_holdout(
            {**optima, **beside},
            law,
            loss=quantity,
            holdout=holdout or None,
            holdout_by=holdout_by,
            holdout_rows=None if holdout_rows is None else np.asarray(holdout_rows, bool)[rows],
            holdout_optional=holdout is None,
            group=group or UNGROUPED,
            **options,
        )
        if len(fitted.draws) and not np.allclose(others, optima[quantity], rtol=1e-6):
            second = {**optima, **beside, quantity: others}
            fitted = _mixed(fitted, fit(second, law, loss=quantity, group=group or UNGROUPED, **options))
        fitted = _named(fitted, quantity)
        fits[quantity] = replace(fitted, notes=(*checked, *notes, *fitted.notes))
    return FittedRule(rule=rule, fits=fits)


def sweep_optima(
    columns: Columns, law: Law, quantity: str, target: str
) -> tuple[dict[str, Array], Array, list[int], list[str]]:
    """A table of one row per design: the law's variables and the best value of `quantity`; that value by the best run
    and its neighbours alone; its best runs' rows; notes.

    A design whose best value is the smallest or largest tried has no optimum and is left out, as is one with a single
    value; where no design has two, the table is one of optima. Raises InputError for a missing column.
    """
    if target not in columns:
        raise InputError(f"{target}: the table has no such column; its columns: {', '.join(columns)}")
    found = {name: variable(columns, name) for name in law.variables}
    if missing := [name for name, values in found.items() if values is None]:
        activated = ACTIVATION in law.id and ACTIVATION[1:] + "_rate" in missing
        leave = f", or leave out {ACTIVATION} where all runs share one rate" if activated else ""
        raise InputError(
            f"{law.id}: no column for {', '.join(missing)}; map one with --let '{missing[0]} = ...'{leave}"
        )
    swept = [name for name in SWEPT if name not in law.variables]
    order = {name: variable(columns, name) for name in ("train_flops", "params_non_embedding", "tokens")}
    settings = setting_columns(columns, target)
    moved = following(columns, settings)
    label = row_groups(columns, [name for name in settings if name not in swept and name not in moved])
    values, losses = numbers(columns[quantity], quantity), numbers(columns[target], target)
    if not (values > 0).all():
        logs = f"; are these logarithms? --let '{quantity} = POW(10, {quantity})'" if values.max() < 0 else ""
        raise InputError(f"{quantity}: must be positive, got {values.min():g}{logs}")
    losses, repeats = _mean_of_seeds(columns, label, losses)
    designs = [np.flatnonzero(label == group) for group in range(int(label.max()) + 1)]
    single = [len(np.unique(values[rows])) == 1 for rows in designs]
    kept: list[int] = []
    best: list[tuple[float, float]] = []
    edge = high = 0
    for rows, one in zip(designs, single, strict=True):
        if one:
            if all(single):
                kept.append(int(rows[np.argmin(losses[rows])]))
                best.append((float(values[rows[0]]),) * 2)
            continue
        high += int(diverged(values[rows], losses[rows], quantity == RATE).sum())
        optimum = sweep_optimum(values[rows], losses[rows], quantity == RATE)
        if optimum is None:
            edge += 1
            continue
        kept.append(int(rows[np.argmin(losses[rows])]))
        best.append((optimum.value, optimum.neighbours))
    if not kept:
        raise InputError(f"{quantity}: every design has its best value at the edge of its sweep: sweep further")
    known = {name: column for name, column in {**order, **found}.items() if column is not None}
    optima = {name: np.asarray(column, float)[kept] for name, column in known.items()}
    count = len(designs)
    notes = [f"{edge} of {count} designs have their best {quantity} at the edge of the sweep: left out"] if edge else []
    if all(single):
        notes.append(f"no design has two values of {quantity}: each one's value is taken as its best")
    elif any(single):
        notes.append(f"{sum(single)} of {count} designs have one {quantity} only, which shows no best one: left out")
    if high:
        notes.append(f"{high} runs lie {FAR:.0%} or more above their design's least {target}: no optimum is from them")
    if moved:
        notes.append(f"{', '.join(moved)}: follows what is swept, and separates no designs")
    if repeats:
        notes.append(f"{repeats} rows repeat the settings of another one: the mean loss of such rows is taken")
    first, second = np.array(best).T
    return {**optima, quantity: first}, second, kept, notes


def _mixed(fitted: FittedLaw, other: FittedLaw) -> FittedLaw:
    """The fit with every second draw from that to the optima of another window: intervals then show both."""
    draws = fitted.draws.copy()
    few = min(len(draws), len(other.draws))
    draws[1:few:2] = other.draws[1:few:2]
    return replace(fitted, draws=draws)


def _mean_of_seeds(columns: Columns, label: Array, losses: Array) -> tuple[Array, int]:
    """Losses (n,) as the mean of the rows of one design that agree in all that is swept, and how many rows repeat
    another one. The least of several seeds would be lower wherever more of them ran."""
    swept = [name for name in SWEPT if name in columns]
    cell = row_groups({**{name: columns[name] for name in swept}, "design": label}, [*swept, "design"])
    counts = np.bincount(cell)
    return (np.bincount(cell, losses) / counts)[cell], len(cell) - len(counts)


def _named(fitted: FittedLaw, quantity: str) -> FittedLaw:
    """The fit, whose influence is on the rule's quantity."""
    found = fitted.influence
    if found is None or found.flops is not None:
        return fitted
    named = replace(found, quantity=quantity)
    notes = dict(zip(found.note(), named.note(), strict=True))
    return replace(fitted, influence=named, diagnosis=tuple(notes.get(each, each) for each in fitted.diagnosis))


def _near(columns: Columns, quantity: str) -> str:
    """How to map a column that looks like a swept quantity; '' where none does."""
    for name in present(columns, tuple(each for each in SWEPT if each != quantity) + _ALSO):
        rate = "lr" in plain(name).split("_") or plain(name) == "learning_rate"
        if rate != (quantity == RATE):
            continue
        length = next((each for each in ("seq_len", "sequence_length") if each in columns), None)
        own = rate or "token" in plain(name)
        times = "" if own else f" * {length or 'TOKENS_PER_SEQUENCE'}"
        return f"--let '{quantity} = {quoted(name)}{times}'"
    return ""


def save_rules(rules: Mapping[str, FittedRule], path: str | Path) -> None:
    """Write `{"rules": {ID: {QUANTITY: fit}}}`, which `moelab plan --law FILE` reads."""
    write_json(Path(path), rules_to_json(rules))


def rules_to_json(rules: Mapping[str, FittedRule], draws: bool = True) -> dict[str, Any]:
    """Plain data of fitted rules."""
    return {
        "rules": {
            name: {quantity: fit_to_json(fitted, draws) for quantity, fitted in rule.fits.items()}
            for name, rule in rules.items()
        }
    }


def holds_rules(path: str | Path) -> bool:
    """Whether a JSON file is one of fitted rules."""
    value = read_json(Path(path), "fit file")
    return isinstance(value, dict) and isinstance(value.get("rules"), dict)


def load_rules(path: str | Path) -> list[FittedRule]:
    """Read what `save_rules` wrote. Raises InputError naming the rule that is damaged."""
    value = read_json(Path(path), "fit file")
    if not isinstance(value, dict) or not isinstance(value.get("rules"), dict):
        raise InputError(f'rules file: {path} holds no {{"rules": ...}}; write one with moelab fit --law RULE --out')
    found = []
    for name, quantities in value["rules"].items():
        if not isinstance(quantities, dict) or not quantities:
            raise InputError(f"rules file {path}: {name}: expected learning_rate or batch_tokens")
        laws = rule_laws(str(name))
        if wrong := [quantity for quantity in quantities if quantity not in laws]:
            raise InputError(f"rules file {path}: {name}: {wrong[0]} is none of {', '.join(laws)}")
        fits = {quantity: fit_from_json(fitted) for quantity, fitted in quantities.items()}
        found.append(FittedRule(rule=str(name), fits=fits))
    return found
