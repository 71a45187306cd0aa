"""Draws of a law's coefficients where each measured value is an estimate with a known error: the optimum of a sweep.

With few designs a bootstrap over them shows little of that error: it draws the same few residuals. Here every draw
moves the values by their errors. How large these are is itself uncertain: the noise's and the residuals' degrees of
freedom are drawn together. Residuals beyond the errors widen all of them (the law's own scatter).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.observations import Observations
from moelab.fitting.problem import Problem

Array = NDArray[Any]
LEAST = 1e-8
"""Variance of a logarithm that no measurement falls below."""
_PASSES = 30


@dataclass(frozen=True)
class _Line:
    """A law whose logarithm is linear in the solver's parameters: `jacobian` (n, P), and y (n,) less its constant."""

    jacobian: Array
    y: Array

    @classmethod
    def of(cls, problem: Problem, y: Array) -> "_Line":
        origin = np.zeros((1, len(problem.parameters.free)))
        r, jacobian = problem.linearise(origin)
        return cls(jacobian[0], y - (problem.log_loss - r[0]))

    def solve(self, weights: Array) -> tuple[Array, Array]:
        """The map (P, n) from y to the parameters, and the residuals (n,)."""
        root = np.sqrt(weights)
        back = np.linalg.pinv(self.jacobian * root[:, None]) * root
        return back, self.y - self.jacobian @ (back @ self.y)


def weighed(problem: Problem, data: Observations) -> Observations:
    """The observations weighed by their errors and by the law's own scatter, on average as before."""
    if data.errors is None:
        return data
    variance = data.errors.variance + _scatter(problem, data, data.errors.variance)
    weights = 1 / np.maximum(variance, LEAST)
    return replace(data, weights=data.weights * weights / weights.mean())


def measured_draws(problem: Problem, data: Observations, count: int, seed: int) -> Array:
    """Coefficients (count, number of coefficients) by draws of the measured values; every second one is of their other
    estimates, by another window. `problem` is a law whose logarithm is linear in its parameters."""
    errors, rng = data.errors, np.random.default_rng(seed)
    names = problem.parameters.law.coefficients
    if errors is None or not count:
        return np.empty((0, len(names)))
    parts = []
    for y, variance, shared in (
        (np.log(data.measured), errors.variance, errors.shared),
        (errors.other, errors.other_variance, errors.other_shared),
    ):
        line = _Line.of(problem, y)
        total = np.maximum(variance + _scatter(problem, data, variance, y), LEAST)
        weights = data.weights * problem.objective.majorizer(line.solve(data.weights)[1])
        back, left = line.solve(weights)
        spare = len(y) - np.linalg.matrix_rank(line.jacobian)
        beyond = float(np.sum(left**2 / total))
        noise = int(errors.spare[0])
        widen = np.sqrt((noise + beyond) / rng.chisquare(max(noise + spare, 1), count))
        moved = widen[:, None] * np.sqrt(total) * rng.standard_normal((count, len(y)))
        moved += rng.standard_normal((count, 1)) * shared
        parts.append((line.y + moved) @ back.T)
    theta = parts[0]
    theta[1::2] = parts[1][1::2]
    theta = np.clip(theta, problem.parameters.low, problem.parameters.high)
    columns = problem.parameters.coefficients(theta)
    return np.concatenate([columns[name] for name in names], axis=1)


def _scatter(problem: Problem, data: Observations, variance: Array, y: Array | None = None) -> float:
    """The variance of the law's own scatter: what the residuals hold beyond the errors (DerSimonian and Laird 1986)."""
    line = _Line.of(problem, np.log(data.measured) if y is None else y)
    spare = len(line.y) - np.linalg.matrix_rank(line.jacobian)
    found = 0.0
    for _ in range(_PASSES):
        weights = 1 / np.maximum(variance + found, LEAST)
        left = line.solve(weights)[1]
        step = (float(np.sum(weights * left**2)) - spare) / float(weights.sum())
        found = max(0.0, found + step)
        if abs(step) < 1e-3 * found or (step < 0 and not found):
            break
    return found
