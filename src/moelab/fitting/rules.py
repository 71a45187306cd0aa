"""Rules for learning rate and batch fitted to a sweep: the optimum of each design, then a power law through them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.files import read_json, write_json
from moelab.fitting.columns import Columns, columns_of
from moelab.fitting.compare import fit_with_holdout
from moelab.fitting.fit_file import fit_from_json, fit_to_json
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.observations import UNGROUPED
from moelab.fitting.sweeps import DesignOptimum, NoOptimum, Sweeps, sweeps_of
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import SWEPT, plain, present, quoted
from moelab.fitting.table_rows import measured_runs
from moelab.laws.law import Law
from moelab.laws.rule_forms import RATE, rule_laws
from moelab.notebook import Shown, short_repr

_CHECKED = ("missing", "units", "flops", "batch", "summary", "copies", "texts", "diverged", "running", "blanks")
"""Checks of a table whose findings change the optimum of a sweep."""
_ALSO = ("learning_rate", "batch_tokens", "tokens_per_batch", "batch_size_tokens")
OBJECTIVE = "squared"
"""Optima scatter by tens of per cent, beyond any Huber threshold that suits losses."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FittedRule(Shown):
    """A rule's form fitted to a sweep: `fits` has a FittedLaw by quantity (learning_rate, batch_tokens), and `optima`
    each swept design's own best value with its interval; it is empty for a rule that was read from a file."""

    rule: str
    fits: dict[str, FittedLaw]
    optima: dict[str, tuple[DesignOptimum, ...]] = field(default_factory=dict)

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
            every other setting are one sweep; its optimum is that of a parabola in ln value around the best run, whose
            curvature is shrunk towards that of the other designs by as much as noise explains.
        rule: steplaw2025, tian2025-moe, marin2026, ..., or that with +activation.
        loss: The column of the loss; None: loss.
        holdout: Share of the largest-compute optima to hold out; None: a fifth where that leaves enough; 0: none.
        holdout_by: A column: leave out each of its values in turn.
        holdout_rows: One true or false per row: the designs whose best run is true are held out.
        group: A column whose groups of designs the bootstrap resamples whole; None: single designs.
        **options: As in `moelab.fit`: fix, share, weight, bootstrap, seed, starts, objective (squared by default).

    Raises:
        InputError: Neither quantity is swept, a variable is missing, or too few designs have an optimum. Where one of
            two quantities can be fitted, a note gives the reason for the other.
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
    fits, optima = {}, {}
    given = {"objective": OBJECTIVE, "holdout": holdout, "holdout_by": holdout_by, "holdout_rows": holdout_rows}
    given |= {"group": group or UNGROUPED, **options}
    failed = {}
    for quantity, law in laws.items():
        try:
            sweeps = sweeps_of(columns, law, quantity, target)
        except NoOptimum as error:
            failed[quantity] = str(error)
            continue
        try:
            fitted = _fitted(sweeps, columns, law, quantity, **given)
        except InputError as error:
            why = str(error).replace(" rows are too few", " designs are too few")
            failed[quantity] = "; ".join([why, *sweeps.notes[:1]])
            continue
        fits[quantity] = replace(fitted, notes=(*checked, *sweeps.notes, *fitted.notes))
        optima[quantity] = sweeps.designs
    if not fits:
        raise InputError("; ".join(failed.values()))
    for quantity, fitted in fits.items():
        notes = [f"no rule for {name}: {why}" for name, why in failed.items()]
        fits[quantity] = replace(fitted, notes=(*fitted.notes, *notes))
    return FittedRule(rule=rule, fits=fits, optima=optima)


def _fitted(
    sweeps: Sweeps,
    columns: Columns,
    law: Law,
    quantity: str,
    *,
    holdout: float | None,
    holdout_rows: Any,
    **options: Any,
) -> FittedLaw:
    """The law fitted to the designs' optima."""
    rows = sweeps.rows
    beside = {name: np.asarray(column)[rows] for name, column in columns.items() if name not in sweeps.columns}
    fitted = fit_with_holdout(
        {**sweeps.columns, **beside},
        law,
        loss=quantity,
        holdout=holdout or None,
        holdout_rows=None if holdout_rows is None else np.asarray(holdout_rows, bool)[rows],
        holdout_optional=holdout is None,
        errors=sweeps.errors,
        **options,
    )
    notes = tuple(note.replace(" rows are too few", " designs are too few") for note in fitted.notes)
    return _named(replace(fitted, notes=notes), quantity, rows)


def _named(fitted: FittedLaw, quantity: str, rows: list[int]) -> FittedLaw:
    """The fit, whose influence is on the rule's quantity, of designs named by the rows of their best runs."""
    found = fitted.influence
    if found is None or found.flops is not None:
        return fitted
    left = tuple(
        replace(each, label=f"design of row {rows[each.rows[0] - 1] + 1}", rows=(rows[each.rows[0] - 1] + 1,))
        if each.label.startswith("row ")
        else replace(each, rows=tuple(rows[row - 1] + 1 for row in each.rows))
        for each in found.left
    )
    named = replace(found, quantity=quantity, left=left)
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
            name: {quantity: _to_json(rule, quantity, draws) for quantity in rule.fits} for name, rule in rules.items()
        }
    }


def _to_json(rule: FittedRule, quantity: str, draws: bool) -> dict[str, Any]:
    found = fit_to_json(rule.fits[quantity], draws)
    return {**found, "optima": [asdict(each) for each in rule.optima.get(quantity, ())]}


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
