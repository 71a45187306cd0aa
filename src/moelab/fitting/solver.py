"""Many robust fits at once: Levenberg-Marquardt for a penalty on log loss, over starts or bootstrap replicates.

Each step solves (H + mu M) s = -g per replicate. H is the penalty's own curvature (for Huber: of the runs inside delta
only, so near the end a step is Newton's), M the majorizing parabola plus a diagonal, so a large mu always descends.
With `exact`, H also holds the curvature of the law itself, by complex step on its analytic gradient.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.objective import Objective
from moelab.fitting.parameters import Parameters
from moelab.laws.law import Values

Array = NDArray[Any]
CHUNK = 60_000
"""Replicates times runs handled together: larger blocks fall out of the processor's cache."""
_FAILED = 1e300


@dataclass(frozen=True, eq=False)
class Problem:
    """n runs to be fitted: the law's variables and the logarithm of what was measured, both (n,)."""

    parameters: Parameters
    variables: Values
    log_loss: Array
    objective: Objective

    def residuals(self, theta: Array) -> Array:
        """log measured - log predicted, (B, n)."""
        with np.errstate(all="ignore"):
            law = self.parameters.law
            return self.log_loss - np.log(law.formula(self.parameters.coefficients(theta), self.variables)[0])

    def value(self, theta: Array, weights: Array) -> Array:
        """The objective, (B,)."""
        r = self.residuals(theta)
        return self._total(r, weights)

    def linearise(self, theta: Array) -> tuple[Array, Array]:
        """Residuals (B, n) and d log(predicted) / d theta (B, n, P)."""
        with np.errstate(all="ignore"):
            loss, gradient = self.parameters.law.formula(self.parameters.coefficients(theta), self.variables)
            loss = np.broadcast_to(loss, (len(theta), len(self.log_loss)))
            return self.log_loss - np.log(loss), self.parameters.jacobian(gradient(), theta, loss)

    def law_curvature(self, theta: Array, pull: Array) -> Array:
        """sum over runs of pull times the second derivative of log(predicted), (B, P, P)."""
        step = 1e-30
        rows = []
        for p in range(theta.shape[1]):
            moved = theta.astype(complex)
            moved[:, p] += 1j * step
            _, jacobian = self.linearise(moved)
            rows.append(np.einsum("bn,bnp->bp", pull, jacobian.imag / step))
        curvature = np.stack(rows, axis=1)
        return 0.5 * (curvature + curvature.transpose(0, 2, 1))

    def _total(self, r: Array, weights: Array) -> Array:
        total = np.sum(
            weights * self.objective.penalty(np.nan_to_num(r, nan=1e100, posinf=1e100, neginf=-1e100)), axis=-1
        )
        return np.where(np.isfinite(r).all(axis=-1), total, _FAILED)


@dataclass(frozen=True, eq=False)
class Solution:
    """Where each of B replicates ended: theta (B, P), objective (B,), and whether it converged."""

    theta: Array
    value: Array
    converged: Array


def minimise(
    problem: Problem, theta: Array, weights: Array, steps: int = 100, exact: bool = False, tolerance: float = 1e-12
) -> Solution:
    """Minimise from every row of `theta` (B, P) under `weights` (B, n) or (1, n), in blocks that fit the cache."""
    if theta.shape[1] == 0:
        value = problem.value(theta, weights)
        return Solution(theta, value, np.ones(len(theta), bool))
    size = max(1, CHUNK // max(1, len(problem.log_loss)))
    weights = np.broadcast_to(weights, (len(theta), len(problem.log_loss)))
    parts = [
        _minimise_block(problem, theta[i : i + size], weights[i : i + size], steps, exact, tolerance)
        for i in range(0, len(theta), size)
    ]
    return Solution(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("theta", "value", "converged")))


def _minimise_block(
    problem: Problem, theta: Array, weights: Array, steps: int, exact: bool, tolerance: float
) -> Solution:
    theta, value = theta.copy(), problem.value(theta, weights)
    mu = np.ones(len(theta))
    calm = np.zeros(len(theta), int)
    active = np.flatnonzero(value < _FAILED)
    for _ in range(steps):
        if not len(active):
            break
        here, w = theta[active], weights[active]
        gradient, hessian, majorant = _quadratic(problem, here, w, exact)
        trial = _step(problem.parameters, here, gradient, hessian, majorant, mu[active])
        # A refused step is retried at once with more damping: the derivatives still hold.
        open_rows = np.arange(len(active))
        for _ in range(6):
            rows = active[open_rows]
            new = problem.value(trial[open_rows], weights[rows])
            gain = value[rows] - new
            better = gain > 0
            small = gain <= tolerance * np.abs(value[rows])
            calm[rows] = np.where(better & ~small, 0, calm[rows] + small)
            theta[rows[better]] = trial[open_rows[better]]
            value[rows[better]] = new[better]
            mu[rows] = np.where(better, mu[rows] * 0.2, mu[rows] * 6)
            open_rows = open_rows[~better]
            if not len(open_rows):
                break
            again = active[open_rows]
            trial[open_rows] = _step(
                problem.parameters,
                here[open_rows],
                gradient[open_rows],
                hessian[open_rows],
                majorant[open_rows],
                mu[again],
            )
        mu = np.clip(mu, 1e-9, 1e12)
        active = active[(calm[active] < 3) & (mu[active] < 1e11)]
    done = np.ones(len(theta), bool)
    done[active] = False
    return Solution(theta, value, done & (value < _FAILED))


def _quadratic(problem: Problem, theta: Array, weights: Array, exact: bool) -> tuple[Array, Array, Array]:
    r, jacobian = problem.linearise(theta)
    objective = problem.objective
    pull = weights * objective.slope(r)
    gradient = -np.einsum("bn,bnp->bp", pull, jacobian)
    flipped = jacobian.transpose(0, 2, 1)
    hessian = flipped @ ((weights * objective.curvature(r))[..., None] * jacobian)
    majorant = flipped @ ((weights * objective.majorizer(r))[..., None] * jacobian)
    if exact:
        hessian = hessian - problem.law_curvature(theta, pull)
    return gradient, hessian, majorant


def _step(parameters: Parameters, theta: Array, gradient: Array, hessian: Array, majorant: Array, mu: Array) -> Array:
    """theta after one damped step inside the bounds; coefficients pressed against a bound stand still."""
    size = theta.shape[1]
    stuck = ((theta <= parameters.low) & (gradient > 0)) | ((theta >= parameters.high) & (gradient < 0))
    diagonal = np.maximum(np.einsum("bpp->bp", majorant), 1e-300)
    diagonal = np.maximum(diagonal, 1e-14 * diagonal.max(axis=1, keepdims=True))
    system = hessian + mu[:, None, None] * majorant
    index = np.arange(size)
    system[:, index, index] += 0.1 * mu[:, None] * diagonal
    # Scale to a unit diagonal, then take coefficients that are stuck out of the system.
    scale = 1 / np.sqrt(diagonal)
    system = system * scale[:, :, None] * scale[:, None, :]
    right = np.where(stuck, 0.0, -gradient * scale)
    system = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, system)
    system[:, index, index] += np.where(stuck, 1.0, 1e-15)
    step = _solve(system, right) * scale
    # With negative curvature the solution may climb: then fall back on steepest descent, scaled.
    climbs = np.sum(step * gradient, axis=1) > 0
    fallback = np.where(stuck, 0.0, -gradient / diagonal) / (1 + mu[:, None])
    step = np.where(climbs[:, None] | ~np.isfinite(step), fallback, step)
    longest = np.max(np.abs(step), axis=1, keepdims=True)
    step = step * np.minimum(1.0, 5.0 / np.maximum(longest, 1e-300))
    return np.clip(theta + step, parameters.low, parameters.high)


def _solve(system: Array, right: Array) -> Array:
    try:
        return np.linalg.solve(system, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        size = system.shape[1]
        return np.linalg.solve(system + 1e-10 * np.eye(size), right[..., None])[..., 0]
