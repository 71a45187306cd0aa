"""The optimum of a fit without each of its runs, or each group that belongs together.

Every run's effect is estimated by one Newton step from the optimum of the fit (the infinitesimal jackknife, Jaeckel
1972); the runs of the largest effects are then left out in turn and the law is fitted again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.influence import BEYOND, Influence, Left
from moelab.fitting.observations import Observations, compute_order
from moelab.fitting.problem import Problem
from moelab.fitting.replicates import curvature_at
from moelab.fitting.solver import CHUNK, minimise
from moelab.laws import Law
from moelab.laws.optimum_draws import choices_of, law_compute, optimum_draws
from moelab.quantities import MOST_FLOPS

Array = NDArray[Any]
TRIED, SHOWN, MEASURED = 8, 5, 200
"""Runs that are left out in turn, those that are shown, and draws that give the interval's width."""
MOST_REFITTED = 5_000
"""Rows above which the effects stay estimates."""
MOST_LISTED = 20
"""Rows of a group that are listed."""
_STEP = 3e-3
_FREE_RUNS = 2


def influence_of(
    problem: Problem, theta: Array, data: Observations, draws: Array, identified: bool = True
) -> Influence | None:
    """What decides the optimum of a fit at `theta` (P,), whose bootstrap draws are (B, number of coefficients).

    Where not all coefficients are `identified`, a prediction is taken: an optimum would not be the runs'. None where
    nothing can move it: no free coefficients, two runs or groups only, no finite value.
    """
    labels, count = _left_out(data)
    if not len(theta) or count <= _FREE_RUNS:
        return None
    law = problem.parameters.law
    quantity = (_optimal_size(law, data) if identified else None) or _prediction(law, data)
    moved = _Moved(problem, quantity[1])
    value = moved.at(theta[None])[0]
    if not np.isfinite(value):
        quantity = _prediction(law, data)
        moved = _Moved(problem, quantity[1])
        value = moved.at(theta[None])[0]
    if not np.isfinite(value):
        return None
    estimated = _estimated(problem, theta, data, moved, labels, count)
    first = np.argsort(-np.abs(estimated), kind="stable")[:TRIED]
    change, refitted = estimated[first], len(data) <= MOST_REFITTED
    if refitted:
        weights = np.where(labels[None, :] == first[:, None], 0.0, data.weights[None, :])
        solved = minimise(problem, np.repeat(theta[None], len(first), axis=0), weights, steps=20, tolerance=1e-7)
        change = moved.at(solved.theta) - value
    order = np.argsort(-np.abs(np.where(np.isfinite(change), change, np.inf)), kind="stable")[:SHOWN]
    left = [_left(data, labels, int(first[k]), float(value), float(change[k]), refitted) for k in order]
    about, _, design = quantity
    batch = {name: draws[:MEASURED, k, None] for k, name in enumerate(law.coefficients)}
    return Influence(
        quantity=about[0],
        flops=about[1],
        design=design,
        value=float(np.exp(value)),
        half_width_rel=_half_width(quantity[1](batch)) if len(draws) else None,
        left=tuple(each for each in left if np.isfinite(each.change_rel)),
    )


Quantity = tuple[tuple[str, float | None], Callable[[Mapping[str, Array]], Array], dict[str, float]]
"""Its name and compute, its logarithm for coefficients (B, 1) -> (B,), and the design it is of."""


@dataclass(frozen=True, eq=False)
class _Moved:
    """The logarithm of a quantity as a function of the solver's parameters."""

    problem: Problem
    quantity: Callable[[Mapping[str, Array]], Array]

    def at(self, theta: Array) -> Array:
        """(B,) at theta (B, P)."""
        return self.quantity(self.problem.parameters.coefficients(theta))

    def slope(self, theta: Array) -> Array:
        """(P,) at theta (P,), by central differences within the bounds."""
        steps = _STEP * np.eye(len(theta))
        low, high = self.problem.parameters.low, self.problem.parameters.high
        ends = np.clip(np.concatenate([theta + steps, theta - steps]), low, high)
        up, down = np.split(self.at(ends), 2)
        width = np.array([ends[k, k] - ends[len(theta) + k, k] for k in range(len(theta))])
        slope = (up - down) / np.where(width > 0, width, 1.0)
        return np.where(np.isfinite(slope), slope, 0.0)


def _left_out(data: Observations) -> tuple[Array, int]:
    """The run or group of each row, (n,), and how many there are."""
    labels = np.arange(len(data)) if data.groups is None else np.unique(data.groups, return_inverse=True)[1]
    return labels, int(labels.max()) + 1


def _largest(data: Observations) -> dict[str, float]:
    """The variables of the run of the largest compute, at its last checkpoint, in whatever order the rows stand."""
    own = compute_order(data.variables)
    own = np.arange(len(data)) if own is None else own
    row = int(np.lexsort((own, own if data.order is None else data.order))[-1])
    return {name: float(values[row]) for name, values in data.variables.items()}


def _optimal_size(law: Law, data: Observations) -> Quantity | None:
    """The law's best size at ten times the largest run's compute, with that run's other choices."""
    run = _largest(data)
    compute = law_compute(law, run)
    size = next((name for name in law.variables if name.startswith("params_")), None)
    if compute is None or size is None or BEYOND * compute > MOST_FLOPS:
        return None
    flops, settings = float(f"{BEYOND * compute:.3g}"), choices_of(law, run)

    def log_size(coefficients: Mapping[str, Array]) -> Array:
        with np.errstate(all="ignore"):
            found = np.log(optimum_draws(law, flops, settings, coefficients, slopes=False)[0][size])
        return np.where(np.isfinite(found), found, np.nan)

    try:
        log_size({name: np.ones((1, 1)) for name in law.coefficients})
    except InputError:
        return None
    return (size, flops), log_size, settings


def _prediction(law: Law, data: Observations) -> Quantity:
    """The law's prediction for the largest run's design with ten times its size and data."""
    run = _largest(data)
    scaled = ("tokens", "unique_tokens")
    design = {n: v * (BEYOND if n.startswith("params_") or n in scaled else 1.0) for n, v in run.items()}
    variables = {name: np.array([design[name]]) for name in law.variables}

    def log_loss(coefficients: Mapping[str, Array]) -> Array:
        with np.errstate(all="ignore"):
            value = np.log(law.loss(coefficients, variables))
        return np.broadcast_to(value, (len(next(iter(coefficients.values()))), 1))[:, 0]

    return (law.kind, None), log_loss, {name: design[name] for name in law.variables}


def _estimated(problem: Problem, theta: Array, data: Observations, moved: _Moved, labels: Array, count: int) -> Array:
    """(count,): the change of the quantity's logarithm without each run or group, by one Newton step."""
    curvature = curvature_at(problem, theta, data.weights)
    scale = 1 / np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    system = curvature * scale[:, None] * scale + 1e-10 * np.eye(len(theta))
    toward = np.linalg.solve(system, moved.slope(theta) * scale) * scale
    change = np.zeros(count)
    for first in range(0, len(data), CHUNK):
        rows = slice(first, first + CHUNK)
        r, jacobian = problem.take(rows).linearise(theta[None])
        pull = data.weights[rows] * problem.objective.slope(r[0]) * (jacobian[0] @ toward)
        np.add.at(change, labels[rows], -pull)
    return change


def _half_width(logs: Array) -> float | None:
    usable = logs[np.isfinite(logs)]
    if len(usable) < 0.9 * len(logs) or len(usable) < 10:
        return None
    low, high = np.quantile(usable, [0.1, 0.9])
    return float(np.expm1((high - low) / 2))


def _left(data: Observations, labels: Array, which: int, value: float, change: float, refitted: bool) -> Left:
    rows = np.flatnonzero(labels == which)
    name = str(data.labels[rows[0]] if data.groups is None else data.groups[rows[0]])
    place = int(data.row[rows[0]]) + 1
    own = data.groups is None and name != str(place)
    return Left(
        label=f"row {place}" + (f", {name}" if own else "") if data.groups is None else name,
        rows=tuple(int(data.row[k]) + 1 for k in rows[:MOST_LISTED]),
        n_runs=len(rows),
        value=float(np.exp(value + change)),
        change_rel=float(np.expm1(change)),
        refitted=refitted,
    )
