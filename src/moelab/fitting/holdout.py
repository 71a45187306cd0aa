"""Held-out error: fit the small runs and predict the largest, or leave out one group after another."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import FEWEST_IN_INTERVAL
from moelab.fitting.columns import columns_of
from moelab.fitting.fit import fit_observations
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.observations import Observations, observations
from moelab.fitting.prediction import Holdout
from moelab.laws import Law, get_law

Array = NDArray[Any]
FIT_OPTIONS = ("objective", "fix", "share", "bootstrap", "seed", "starts", "progress", "prior")


def ordered_holdout(table: Any, law: str | Law, fraction: float = 0.2, **options: Any) -> tuple[FittedLaw, Holdout]:
    """Fit without the most expensive `fraction` of the runs (train_flops, else parameters x tokens); predict those.

    Runs that cost the same stay together, on the held-out side. Options as in `fit`. Raises InputError where the runs
    cannot be ordered or too few remain.
    """
    check_fraction(fraction)
    law, data, options = _prepare(table, law, options)
    if data.order is None:
        raise InputError("holdout: the table has neither train_flops nor parameters to order the runs by")
    first = np.sort(data.order)[-max(1, round(fraction * len(data)))]
    # A relative slack keeps runs of one budget together when their FLOPs differ by rounding.
    held = data.order >= first * (1 - 1e-6)
    if held.all():
        raise InputError("holdout: every run costs the same; hold out a group with --holdout-by COLUMN instead")
    return _score(law, data, held, "the most expensive runs", options)


def check_fraction(fraction: float) -> None:
    """Raises InputError for a share outside 0 to 1."""
    if not 0 < fraction < 1:
        raise InputError(f"holdout: expected a fraction between 0 and 1, got {fraction:g}")


def masked_holdout(table: Any, law: str | Law, held: Any, **options: Any) -> tuple[FittedLaw, Holdout]:
    """Fit without the rows where `held` is true and predict those."""
    law, data, options = _prepare(table, law, options)
    held = np.asarray(held, bool)
    if not held.any() or held.all():
        raise InputError("holdout: the condition must hold for some rows and not for all")
    return _score(law, data, held, "the chosen rows", options)


def check_column(table: Any, column: str) -> None:
    """Raises InputError where the table lacks the column to hold out by."""
    columns = columns_of(table)
    if column not in columns:
        raise InputError(f"holdout-by: the table has no column {column!r}; its columns: {', '.join(columns)}")


def group_holdout(table: Any, law: str | Law, column: str, **options: Any) -> Holdout:
    """Leave out each value of `column` in turn and predict it from the others."""
    check_column(table, column)
    law, data, options = _prepare(table, law, options)
    # The split defines what is held out; the groups define what a bootstrap resamples. They are independent.
    split = np.array([str(value) for value in columns_of(table)[column]])
    names = list(dict.fromkeys(split.tolist()))
    if not 2 <= len(names) <= 50:
        raise InputError(f"holdout-by: {column} has {len(names)} values; expected 2 to 50 groups")
    scores = [_score(law, data, split == name, f"{column} {name}", options)[1] for name in names]
    rows = [{**row, "group": name} for name, score in zip(names, scores, strict=True) for row in score.rows]
    return _summary(rows, f"each {column} in turn")


def _prepare(table: Any, law: str | Law, options: dict[str, Any]) -> tuple[Law, Observations, dict[str, Any]]:
    law = get_law(law) if isinstance(law, str) else law
    data = observations(table, law, options.get("loss"), options.get("group"), options.get("weight"))
    data = replace(data, errors=options.get("errors"))
    return law, data, {name: options[name] for name in FIT_OPTIONS if name in options}


def _score(law: Law, data: Observations, held: Array, by: str, options: dict[str, Any]) -> tuple[FittedLaw, Holdout]:
    seen, unseen = data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))
    fitted = fit_observations(seen, law, **options)
    predicted = fitted.predict(unseen.variables, noise=True)
    # A percentile of a handful of draws is one of them: with so few there is no interval, hence no coverage.
    enough = len(fitted.draws) >= FEWEST_IN_INTERVAL
    reference = float(seen.order.max()) if seen.order is not None else None
    rows = [
        {
            "row": int(unseen.row[i]),
            "measured": float(unseen.measured[i]),
            "predicted": float(predicted.value[i]),
            "low": _maybe(predicted.low[i]) if enough else None,
            "high": _maybe(predicted.high[i]) if enough else None,
            "extrapolation": _maybe(predicted.extrapolation[i]),
            "factor": None if unseen.order is None or reference is None else float(unseen.order[i] / reference),
        }
        for i in range(len(unseen))
    ]
    return fitted, _summary(rows, by)


def _summary(rows: list[dict[str, Any]], by: str) -> Holdout:
    relative = np.array([row["predicted"] / row["measured"] - 1 for row in rows])
    inside = [row["low"] <= row["measured"] <= row["high"] for row in rows if row["low"] is not None]
    factors = [row["factor"] for row in rows if row["factor"] is not None]
    return Holdout(
        n_runs=len(rows),
        mean_abs_rel=float(np.mean(np.abs(relative))),
        bias_rel=float(np.mean(relative)),
        coverage_80=float(np.mean(inside)) if inside else None,
        max_extrapolation=max(factors) if factors else None,
        by=by,
        rows=rows,
    )


def _maybe(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
