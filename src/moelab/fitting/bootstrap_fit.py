"""A law fitted to a table's runs alone, without a prior: the robust optimum of many starts, with bootstrap draws."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting import replicates
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.left_out import influence_of
from moelab.fitting.measured_draws import measured_draws, weighed
from moelab.fitting.objective import Objective
from moelab.fitting.observations import Observations
from moelab.fitting.parameters import Parameters
from moelab.fitting.point_fit import (
    at_bound,
    coefficients_at,
    determination,
    enough_rows,
    error_measures,
    point_fit,
    predicted_losses,
)
from moelab.fitting.problem import Problem
from moelab.fitting.solver import minimise
from moelab.fitting.widening import ALONE, held_out, scale_words, widening_of
from moelab.laws import Law
from moelab.laws.own_designs import as_fitted

Array = NDArray[Any]
PART_DRAWS = 60
"""Bootstrap draws of a fit to a part of the runs: how much of its errors they explain."""


def bootstrap_fit(
    data: Observations,
    law: Law,
    objective: Objective,
    fix: Mapping[str, float],
    share: Sequence[Sequence[str]],
    bootstrap: int,
    seed: int,
    starts: int,
    progress: replicates.Progress | None = None,
    influence: bool = False,
) -> FittedLaw:
    """The optimum with its draws, and the width that held-out runs ask of its intervals beyond the fitted ones.

    Raises InputError for too few rows and where no start gives finite predictions.
    """
    parameters, notes = enough_rows(law, dict(fix), share, len(data))
    problem = Problem(parameters, data.variables, np.log(data.measured), objective)
    data = weighed(problem, data)
    weights = data.weights[None, :]
    theta, modes, agreeing, tried = point_fit(problem, weights, starts, seed)
    value = float(problem.value(theta[None], weights)[0])
    coefficients = coefficients_at(parameters, theta)
    predicted = predicted_losses(law, coefficients, data, fix)
    if data.errors is not None and data.groups is None:
        draws = measured_draws(problem, data, bootstrap, seed)
    else:
        draws = replicates.bootstrap(problem, modes, data, bootstrap, seed, progress)
    condition, unidentified = determination(problem, theta, weights)
    fitted = FittedLaw(
        law=as_fitted(law, data.kinds),
        n_runs=len(data),
        coefficients=coefficients,
        draws=draws,
        ranges={name: (float(v.min()), float(v.max())) for name, v in data.variables.items()},
        objective=value,
        objective_kind=str(objective),
        starts=tried,
        starts_agreeing=agreeing,
        at_bound=at_bound(parameters, theta),
        condition=condition,
        unidentified=unidentified,
        held=parameters.held,
        in_sample=error_measures(data.measured, predicted),
        measured=data.measured,
        predicted=predicted,
        labels=tuple(data.labels.tolist()),
        kinds=tuple(data.kinds.tolist()),
        free=len(parameters.free),
        cpu_seconds=0.0,
        notes=(*notes, *_blind_spots(law, data), *_large(data, parameters, bootstrap)),
        seed_noise=data.seed_noise(),
        weights=data.uneven_weights,
        influence=influence_of(problem, theta, data, draws, not set(unidentified) - set(at_bound(parameters, theta)))
        if influence and len(draws)
        else None,
    )
    return _with_drift(fitted, data, problem, modes, seed)


def _with_drift(fitted: FittedLaw, data: Observations, problem: Problem, modes: Array, seed: int) -> FittedLaw:
    """The fit with the drift that other tables and its own held-out runs show; as it is without draws and for measured
    values with known errors, whose draws hold the law's own scatter."""
    if not len(fitted.draws) or data.errors is not None:
        return fitted
    splits = held_out(data, lambda part: _part_fit(fitted, part, problem, modes, seed))
    found = replace(widening_of(data, splits, ALONE), factor=1.0)
    return replace(fitted, widening=found, notes=(*fitted.notes, *found.notes(scale_words(data.variables))))


def _part_fit(fitted: FittedLaw, part: Observations, problem: Problem, modes: Array, seed: int) -> FittedLaw:
    """The law fitted to a part of the runs, from the optima (M, P) of all. Raises InputError for too few rows."""
    if len(part) < 2 * fitted.free:
        raise InputError(f"{fitted.law.id}: {len(part)} rows are too few for {fitted.free} free coefficients")
    problem = Problem(problem.parameters, part.variables, np.log(part.measured), problem.objective)
    ends = minimise(problem, modes, np.repeat(part.weights[None], len(modes), axis=0), steps=300, tolerance=1e-14)
    best = ends.theta[np.argsort(ends.value, kind="stable")[:1]]
    coefficients = coefficients_at(problem.parameters, best[0])
    return replace(
        fitted,
        n_runs=len(part),
        coefficients=coefficients,
        draws=replicates.bootstrap(problem, best, part, min(len(fitted.draws), PART_DRAWS), seed),
        measured=part.measured,
        predicted=predicted_losses(fitted.law, coefficients, part, {}),
        weights=part.uneven_weights,
    )


def _blind_spots(law: Law, data: Observations) -> list[str]:
    """Coefficients that this table does not identify, and runs that this law does not describe."""
    same = [name for name in law.variables if np.ptp(data.variables[name]) == 0]
    found = [f"{name} takes one value only: its coefficients are not identified" for name in same]
    if "expansion" in data.variables and len(np.unique(data.variables["expansion"][data.kinds == "moe"])) > 1:
        found.append("the runs differ in expansion, which is no variable of this law")
    return found


def _large(data: Observations, parameters: Parameters, bootstrap: int) -> list[str]:
    if not bootstrap or not replicates.steps(data, len(parameters.free)):
        return []
    return [f"{len(data)} rows: bootstrap replicates take {replicates.PASSES} Newton steps from the optimum"]
