"""Fit a law to a table of runs: many starts, the robust optimum, and every bootstrap replicate as one batch."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting import replicates
from moelab.fitting.checks import FEWEST_DRAWS, check_effort, check_seed
from moelab.fitting.columns import columns_of
from moelab.fitting.diagnosis import diagnose
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.objective import Objective
from moelab.fitting.observations import Observations, observations
from moelab.fitting.parameters import Parameters, known_name
from moelab.fitting.solver import Problem, minimise
from moelab.fitting.starts import draw_starts
from moelab.fitting.table_checks import check_table, measured_runs
from moelab.laws import Law, get_law

Array = NDArray[Any]
STARTS, REFINED = 512, 16
SEARCHED, SPREAD = 5_000, 2_000
"""Rows among which starts are searched, and rows over which the mean interval is taken; a sample of larger tables."""
_AGREE = 1e-6
MOST_OFF = 100.0
"""Largest factor between predicted and measured loss that a fit may start from."""


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
    fitted = fit_table(table, law, loss=loss, group=group, weight=weight, seed=seed, starts=starts, **options)
    notes = [str(finding) for finding in findings if finding.check != "copies"]  # those a fit notes by itself
    return replace(fitted, notes=(*notes, *fitted.notes))


def fit_table(
    table: Any,
    law: Law,
    *,
    loss: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    **options: Any,
) -> FittedLaw:
    """`fit` without the checks of the table."""
    columns = columns_of(table)
    data = observations(columns, law, loss, group, weight)
    fitted = fit_observations(data, law, **options)
    return replace(fitted, diagnosis=tuple(diagnose(fitted, data, columns, loss or law.kind)))


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
) -> FittedLaw:
    """`fit` for runs that are already a law's variables."""
    began = time.process_time()
    check_options(bootstrap=bootstrap, starts=starts, seed=seed)
    objective = Objective.parse(objective)
    parameters, notes = _enough_rows(law, dict(fix or {}), share, len(data))
    problem = Problem(parameters, data.variables, np.log(data.measured), objective)
    weights = data.weights[None, :]
    theta, modes, agreeing, tried = _point_fit(problem, weights, starts, seed)
    value = float(problem.value(theta[None], weights)[0])
    coefficients = _coefficients(parameters, theta)
    predicted = _predicted(law, coefficients, data, fix or {})
    draws = replicates.bootstrap(problem, modes, data, bootstrap, seed, progress)
    fitted = FittedLaw(
        law=law,
        n_runs=len(data),
        coefficients=coefficients,
        draws=draws,
        ranges={name: (float(v.min()), float(v.max())) for name, v in data.variables.items()},
        objective=value,
        objective_kind=str(objective),
        starts=tried,
        starts_agreeing=agreeing,
        at_bound=_at_bound(parameters, theta),
        condition=_condition(problem, theta, weights),
        held=parameters.held,
        in_sample=_errors(data.measured, predicted),
        measured=data.measured,
        predicted=predicted,
        labels=tuple(data.labels.tolist()),
        kinds=tuple(data.kinds.tolist()),
        free=len(parameters.free),
        cpu_seconds=0.0,
        notes=(*notes, *_blind_spots(law, data), *_thin(bootstrap), *_large(data, parameters, bootstrap)),
        seed_noise=data.seed_noise(),
    )
    few = slice(None, None, -(-len(data) // SPREAD))
    interval = fitted.mean_interval({name: data.variables[name][few] for name in law.variables})
    return replace(fitted, interval_rel=interval, cpu_seconds=time.process_time() - began)


def check_options(bootstrap: int = 0, starts: int = 1, seed: int = 0) -> None:
    """Raises InputError for a number of replicates or starts out of range and for a negative seed."""
    check_effort("bootstrap", bootstrap)
    check_effort("starts", starts, fewest=1)
    check_seed(seed)


def _enough_rows(
    law: Law, fix: dict[str, float], share: Sequence[Sequence[str]], rows: int
) -> tuple[Parameters, list[str]]:
    parameters = Parameters.of(law, fix, share)
    taken = {known_name(law, name, "fix") for name in (*fix, *(name for names in share for name in names))}
    holdable = [name for name in law.hold if law.published and name not in taken]
    held = []
    while rows < 2 * len(parameters.free) and holdable:
        held.append(holdable.pop(0))
        parameters = Parameters.of(law, {**fix, **{name: (law.published or {})[name] for name in held}}, share)
    if rows < 2 * len(parameters.free):
        after = f" even with {', '.join(held)} held at published values" if held else ""
        raise InputError(
            f"{law.id}: {rows} rows are too few for {len(parameters.free)} free coefficients{after}; "
            f"needs {2 * len(parameters.free)}, or hold some with --fix NAME=VALUE"
        )
    if not held:
        return parameters, []
    return parameters, [f"only {rows} rows: {', '.join(held)} stay at published values"]


def _point_fit(problem: Problem, weights: Array, starts: int, seed: int) -> tuple[Array, Array, int, int]:
    """The best optimum, the distinct optima worth starting replicates from, how many starts agree, how many ran."""
    few, some = _sample(problem, weights, seed)
    theta = draw_starts(few, some, starts, min(REFINED, starts), seed)
    solved = minimise(few, theta, some, steps=300, tolerance=1e-14)
    best = float(solved.value.min())
    if not best < 1e299:
        raise InputError(f"{problem.parameters.law.id}: no start gave finite predictions; check the columns' units")
    agreeing = int(np.sum(solved.value <= best * (1 + _AGREE) + 1e-18))
    order = np.argsort(solved.value, kind="stable")
    modes = [solved.theta[order[0]]]
    for index in order[1:]:
        near = solved.value[index] <= 1.02 * best + 1e-18
        if near and all(np.max(np.abs(solved.theta[index] - mode)) > 0.3 for mode in modes) and len(modes) < 3:
            modes.append(solved.theta[index])
    if few is not problem:
        solved = minimise(problem, np.array(modes), weights, steps=300, tolerance=1e-14)
        modes = list(solved.theta[np.argsort(solved.value, kind="stable")])
    return modes[0], np.array(modes), agreeing, len(theta)


def _sample(problem: Problem, weights: Array, seed: int) -> tuple[Problem, Array]:
    """The problem that starts are drawn for: of a large table, `SEARCHED` rows by chance."""
    if len(problem.log_loss) <= SEARCHED:
        return problem, weights
    rows = np.sort(np.random.default_rng(seed).choice(len(problem.log_loss), SEARCHED, replace=False))
    return problem.take(rows), weights[:, rows]


def _predicted(law: Law, coefficients: Mapping[str, float], data: Observations, fix: Mapping[str, float]) -> Array:
    """The law at the runs themselves. Raises InputError where fixed values leave no fit worth the name."""
    with np.errstate(all="ignore"):
        predicted = np.asarray(law.loss(coefficients, data.variables), float)
        off = np.abs(np.log(predicted / data.measured))
    if not np.all(off < np.log(MOST_OFF)):
        named = ", ".join(f"{name}={value:g}" for name, value in fix.items())
        cause = f"fix: with {named}" if named else law.id
        raise InputError(
            f"{cause}: predictions are more than {MOST_OFF:g} times off the measured losses, or not finite"
        )
    return np.broadcast_to(predicted, data.measured.shape)


def _coefficients(parameters: Parameters, theta: Array) -> dict[str, float]:
    return {name: float(values[0, 0]) for name, values in parameters.coefficients(theta[None]).items()}


def _at_bound(parameters: Parameters, theta: Array) -> tuple[str, ...]:
    near = 1e-6 * (1 + np.abs(theta))
    touching = (theta - parameters.low < near) | (parameters.high - theta < near)
    return tuple(name for name, at in zip(parameters.free, touching, strict=True) if at)


def _condition(problem: Problem, theta: Array, weights: Array) -> float:
    """Of the derivative of log loss by the solver's parameters: large means that some are not identified."""
    if not len(theta):
        return 1.0
    _, jacobian = problem.linearise(theta[None])
    values = np.linalg.svd(np.sqrt(weights[0])[:, None] * jacobian[0], compute_uv=False)
    return float(values[0] / values[-1]) if values[-1] > 0 else float("inf")


def _errors(measured: Array, predicted: Array) -> dict[str, float]:
    relative = predicted / measured - 1
    return {
        "rmse": float(np.sqrt(np.mean((predicted - measured) ** 2))),
        "rmse_log": float(np.sqrt(np.mean(np.log(predicted / measured) ** 2))),
        "mean_abs_rel": float(np.mean(np.abs(relative))),
    }


def _blind_spots(law: Law, data: Observations) -> list[str]:
    """Coefficients that this table does not identify, and runs that this law does not describe."""
    same = [name for name in law.variables if np.ptp(data.variables[name]) == 0]
    found = [f"{name} takes one value only: its coefficients are not identified" for name in same]
    rows = np.stack([*(data.variables[name] for name in law.variables), data.measured], axis=1)
    copies = len(rows) - len(np.unique(rows, axis=0))
    if copies:
        found.append(f"{copies} of {len(rows)} rows repeat another one exactly, loss included: are they copies?")
    if not law.covers_dense and np.any(data.kinds == "dense"):
        found.append(f"{int(np.sum(data.kinds == 'dense'))} runs are dense, which this law does not describe")
    if "expansion" in data.variables and len(np.unique(data.variables["expansion"][data.kinds == "moe"])) > 1:
        found.append("the runs differ in expansion, which is no variable of this law")
    return found


def _thin(bootstrap: int) -> list[str]:
    if not 0 < bootstrap < FEWEST_DRAWS:
        return []
    return [f"only {bootstrap} bootstrap draws: the intervals are unreliable below {FEWEST_DRAWS}"]


def _large(data: Observations, parameters: Parameters, bootstrap: int) -> list[str]:
    if not bootstrap or not replicates.steps(data, len(parameters.free)):
        return []
    return [f"{len(data)} rows: bootstrap replicates take {replicates.PASSES} Newton steps from the optimum"]
