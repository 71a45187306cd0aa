"""Fit a law to a table of runs: many starts, the robust optimum, and every bootstrap replicate as one batch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting import replicates
from moelab.fitting.blanks import filled
from moelab.fitting.bootstrap_fit import bootstrap_fit
from moelab.fitting.checks import FEWEST_DRAWS, check_effort, check_seed
from moelab.fitting.columns import columns_of
from moelab.fitting.diagnosis import diagnose
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.objective import Objective
from moelab.fitting.observations import MeasuredErrors, Observations, observations
from moelab.fitting.point_fit import SPREAD, STARTS
from moelab.fitting.prior import Prior, find_prior
from moelab.fitting.prior_fit import fit_with_prior
from moelab.fitting.run_kinds import undescribed_notes
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_experts import width_notes
from moelab.fitting.table_rows import measured_runs
from moelab.fitting.widening import MOST_DRAWS, held_out, scale_words, widening_of
from moelab.laws import Law, get_law

Array = NDArray[Any]


def fit(
    table: Any,
    law: str | Law,
    *,
    loss: str | None = None,
    objective: str | Objective = "huber:1e-3",
    fix: Mapping[str, float] | None = None,
    share: Sequence[Sequence[str]] = (),
    bootstrap: int = 1000,
    group: str | None = None,
    weight: str | None = None,
    seed: int = 0,
    starts: int = STARTS,
    prior: str | Path | Prior | None = None,
) -> FittedLaw:
    """Fit one law to a table of runs: the robust optimum of many starts, with bootstrap draws.

    Args:
        table: The runs: a data frame, columns by name, rows, or the path of a CSV, Parquet or JSON-lines file or of a
            folder of runs. Columns are named as the law's variables (params_active, tokens, n_experts, ...) and loss.
        law: A law's id, or a Law.
        loss: The column to fit; None: loss, in nats per token.
        objective: huber:DELTA or squared on the log of the loss, or floor:DELTA:WEIGHT.
        fix: Coefficients to hold at a value.
        share: Groups of coefficients that are to be one number.
        bootstrap: Replicates for the intervals; 0 for none.
        group: A column whose groups are resampled whole. None: the runs, where rows are checkpoints of runs; `none`:
            every row by itself.
        weight: A column of weights.
        seed: Of starts and bootstrap.
        starts: Random starts of the optimiser.
        prior: What other tables found: None is the prior that ships for the law (moelab2026 has one), `none` is none,
            else a Prior or its file.

    Returns:
        A FittedLaw: coefficients with p10 and p90, the fitted range, errors, notes; `predict(...)` gives values with
        intervals. With fewer rows than twice the free coefficients, those the law's file lists are held at their
        published values, and `held` names them.

    Raises:
        InputError: Missing or bad columns, too few rows, an unknown law or coefficient.

    >>> import moelab
    >>> runs = {"params_total": [1e7, 2e7, 4e7, 8e7] * 3, "tokens": [1e8] * 4 + [4e8] * 4 + [2e9] * 4}
    >>> law = moelab.get_law("besiroglu2024")
    >>> runs["loss"] = [float(law.loss(None, {"params_total": n, "tokens": d})) for n, d in zip(*runs.values())]
    >>> fitted = moelab.fit(runs, "besiroglu2024", bootstrap=20, starts=32)
    >>> {name: round(value, 3) for name, value in fitted.coefficients.items() if name in ("alpha", "beta")}
    {'alpha': 0.348, 'beta': 0.366}
    """
    if not isinstance(law, str | Law):
        raise InputError(f"law: expected one law or its id, got {law!r}; compare_laws takes several")
    law = get_law(law) if isinstance(law, str) else law
    target = loss or law.kind
    findings = check_table(table, target)
    table, _, _ = measured_runs(table, target)
    options: dict[str, Any] = {"objective": objective, "fix": fix, "share": share, "bootstrap": bootstrap}
    options["prior"] = prior
    fitted = fit_table(table, law, loss=loss, group=group, weight=weight, seed=seed, starts=starts, **options)
    return replace(fitted, notes=(*map(str, findings), *fitted.notes))


def fit_table(
    table: Any,
    law: Law,
    *,
    loss: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    errors: MeasuredErrors | None = None,
    **options: Any,
) -> FittedLaw:
    """`fit` without the checks of the table; `errors` are those of its measured values."""
    columns = columns_of(table)
    data = replace(observations(columns, law, loss, group, weight), errors=errors)
    fitted = fit_observations(data, law, influence=True, **options)
    kinds = undescribed_notes(fitted.law, fitted.kinds, columns)
    fitted = replace(fitted, notes=(*kinds, *fitted.notes, *width_notes(columns, law)))
    return diagnose(fitted, data, filled(columns)[0], loss or law.kind)


def fit_observations(
    data: Observations,
    law: Law,
    *,
    objective: str | Objective = "huber:1e-3",
    fix: Mapping[str, float] | None = None,
    share: Sequence[Sequence[str]] = (),
    bootstrap: int = 1000,
    seed: int = 0,
    starts: int = STARTS,
    progress: replicates.Progress | None = None,
    influence: bool = False,
    prior: str | Path | Prior | None = None,
) -> FittedLaw:
    """`fit` for runs that are already a law's variables; `influence` finds which of them decide the optimum."""
    began = time.process_time()
    check_options(bootstrap=bootstrap, starts=starts, seed=seed)
    objective = Objective.parse(objective)
    known = find_prior(law, prior)
    if known is not None:
        if share:
            raise InputError(f"share: {law.id} is fitted with a prior, which shares no coefficients; add --prior none")
        fitted = fit_with_prior(data, law, known, objective, fix or {}, bootstrap, seed, progress)
        fitted = _with_widening(fitted, data, known, objective, fix or {}, seed)
        fitted = replace(fitted, notes=(*fitted.notes, *_thin(bootstrap)))
        return _timed(fitted, data, began)
    fitted = bootstrap_fit(data, law, objective, fix or {}, share, bootstrap, seed, starts, progress, influence)
    return _timed(replace(fitted, notes=(*fitted.notes, *_thin(bootstrap))), data, began)


def _with_widening(
    fitted: FittedLaw, data: Observations, prior: Prior, objective: Objective, fix: Mapping[str, float], seed: int
) -> FittedLaw:
    """The fit with the width of its intervals that its own held-out runs ask for; as it is without draws."""
    if not len(fitted.draws):
        return fitted
    count = min(len(fitted.draws), MOST_DRAWS)
    splits = held_out(data, lambda part: fit_with_prior(part, fitted.law, prior, objective, fix, count, seed))
    found = widening_of(data, splits, prior.drift)
    notes = found.notes(scale_words(data.variables), "the prior's tables")
    return replace(fitted, widening=found, notes=(*fitted.notes, *notes))


def _timed(fitted: FittedLaw, data: Observations, began: float) -> FittedLaw:
    """The fit with its mean interval on these runs, their largest compute and the processor's time."""
    few = slice(None, None, -(-len(data) // SPREAD))
    interval = fitted.mean_interval({name: data.variables[name][few] for name in fitted.law.variables})
    known = data.flops is not None and np.isfinite(data.flops).all()
    most = float(data.flops.max()) if known and data.flops is not None else None
    return replace(fitted, interval_rel=interval, cpu_seconds=time.process_time() - began, most_flops=most)


def check_options(bootstrap: int = 0, starts: int = 1, seed: int = 0) -> None:
    """Raises InputError for a number of replicates or starts out of range and for a negative seed."""
    check_effort("bootstrap", bootstrap)
    check_effort("starts", starts, fewest=1)
    check_seed(seed)


def _thin(bootstrap: int) -> list[str]:
    if not 0 < bootstrap < FEWEST_DRAWS:
        return []
    return [f"only {bootstrap} bootstrap draws: the intervals are unreliable below {FEWEST_DRAWS}"]
