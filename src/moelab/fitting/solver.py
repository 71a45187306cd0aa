"""Many robust fits at once: Levenberg-Marquardt for a penalty on log loss, over starts or bootstrap replicates.

Each step solves (H + mu M) s = -g per replicate. H is the penalty's own curvature (for Huber: of the runs inside delta
only, so near the end a step is Newton's), M the majorizing parabola plus a diagonal, so a large mu always descends.
Beside the straight step stands one bent by the law's second derivative along it (geodesic acceleration, arXiv
1201.5885): scaling laws have long curved valleys, which it follows several times faster; the better one is kept.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.parameters import Parameters
from moelab.fitting.problem import FAILED, Problem

Array = NDArray[Any]
CHUNK = 60_000
"""Replicates times runs handled together: larger blocks fall out of the processor's cache."""
EASE, DAMP, RETRIES = 0.2, 6.0, 6
"""Damping after a step that was kept, after one that was refused, and how often one is retried."""
SMALL = 10_000
"""Replicates times runs up to which two evaluations are one call: the calls themselves take the time then."""
BEND = 0.1
"""Share of a step at which the residuals are looked at to learn how they curve along it."""
LONGEST = 5.0


@dataclass(frozen=True, eq=False)
class Solution:
    """Where each of B replicates ended: theta (B, P), objective (B,), and whether it converged."""

    theta: Array
    value: Array
    converged: Array


def minimise(problem: Problem, theta: Array, weights: Array, steps: int = 100, tolerance: float = 1e-12) -> Solution:
    """Minimise from every row of `theta` (B, P) under `weights` (B, n) or (1, n), in blocks that fit the cache."""
    if theta.shape[1] == 0:
        value = problem.value(theta, weights)
        return Solution(theta, value, np.ones(len(theta), bool))
    size = max(1, CHUNK // max(1, len(problem.log_loss)))
    weights = np.broadcast_to(weights, (len(theta), len(problem.log_loss)))
    with np.errstate(all="ignore"):
        parts = [
            _minimise_block(problem, theta[i : i + size], weights[i : i + size], steps, tolerance)
            for i in range(0, len(theta), size)
        ]
    return Solution(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("theta", "value", "converged")))


def _minimise_block(problem: Problem, theta: Array, weights: Array, steps: int, tolerance: float) -> Solution:
    theta, value = theta.copy(), problem.raw_total(problem.raw_residuals(theta), weights)
    mu, calm = np.ones(len(theta)), np.zeros(len(theta), int)
    active = np.flatnonzero(value < FAILED)
    for _ in range(steps):
        if not len(active):
            break
        before = value[active]
        local = _Local.at(problem, theta[active], weights[active])
        rows = np.arange(len(active))
        # A refused step is retried with more damping: the derivatives still hold.
        for _ in range(RETRIES):
            at = active[rows]
            trial, new = _best_step(problem, local.take(rows), mu[at])
            better = new < value[at]
            theta[at[better]], value[at[better]] = trial[better], new[better]
            mu[at] = np.minimum(np.maximum(mu[at] * np.where(better, EASE, DAMP), 1e-16), 1e12)
            rows = rows[~better]
            if not len(rows):
                break
        gain = before - value[active]
        calm[active] = np.where(gain > tolerance * before, 0, calm[active] + (gain > 0))
        active = active[(calm[active] < 3) & (mu[active] < 1e10)]
    done = np.ones(len(theta), bool)
    done[active] = False
    return Solution(theta, value, done & (value < FAILED))


@dataclass(frozen=True, eq=False)
class _Local:
    """The objective around theta (B, P): residuals r (B, n), their slopes J (B, n, P), and its quadratic models.

    `curvature` and `majorizer` are the penalty's at r, (B, n); `hessian` and `majorant` what they make of J, (B, P, P).
    """

    theta: Array
    weights: Array
    r: Array
    jacobian: Array
    curvature: Array
    majorizer: Array
    gradient: Array
    hessian: Array
    majorant: Array

    @classmethod
    def at(cls, problem: Problem, theta: Array, weights: Array) -> "_Local":
        r, jacobian = problem.raw_linearise(theta)
        objective, flipped = problem.objective, jacobian.transpose(0, 2, 1)
        curvature, majorizer = objective.curvature(r), objective.majorizer(r)
        return cls(
            theta,
            weights,
            r,
            jacobian,
            curvature,
            majorizer,
            -(flipped @ (weights * objective.slope(r))[..., None])[..., 0],
            flipped @ ((weights * curvature)[..., None] * jacobian),
            flipped @ ((weights * majorizer)[..., None] * jacobian),
        )

    def take(self, rows: Array) -> "_Local":
        if len(rows) == len(self.theta):
            return self
        return _Local(
            self.theta[rows],
            self.weights[rows],
            self.r[rows],
            self.jacobian[rows],
            self.curvature[rows],
            self.majorizer[rows],
            self.gradient[rows],
            self.hessian[rows],
            self.majorant[rows],
        )


def _best_step(problem: Problem, local: _Local, mu: Array) -> tuple[Array, Array]:
    """Where the better of the straight and the bent step ends, and the objective there."""
    parameters, damped = problem.parameters, _Damped.of(problem.parameters, local, mu)
    step = damped.step(local.gradient)
    end = local.theta + step
    straight = np.minimum(np.maximum(end, parameters.low), parameters.high)
    there, ahead = _residuals_at(problem, straight, local.theta + BEND * step)
    value = problem.raw_total(there, local.weights)
    # The residuals' second derivative along the step, then the correction that undoes it.
    along = (local.jacobian @ step[..., None])[..., 0]
    second = 2 / BEND * ((ahead - local.r) / BEND + along)
    pull = local.weights * (local.curvature + mu[:, None] * local.majorizer) * second
    turn = -(local.jacobian.transpose(0, 2, 1) @ pull[..., None])[..., 0]
    small = np.isfinite(turn)
    if not small.all():
        turn = np.where(small.all(axis=1)[:, None], turn, 0.0)
    bent = np.minimum(np.maximum(end + 0.5 * damped.step(turn), parameters.low), parameters.high)
    bent_value = problem.raw_total(problem.raw_residuals(bent), local.weights)
    better = bent_value < value
    return np.where(better[:, None], bent, straight), np.where(better, bent_value, value)


def _residuals_at(problem: Problem, theta: Array, other: Array) -> tuple[Array, Array]:
    """The residuals at two thetas (B, P)."""
    if len(theta) * len(problem.log_loss) > SMALL:
        return problem.raw_residuals(theta), problem.raw_residuals(other)
    both = problem.raw_residuals(np.concatenate([theta, other]))
    return both[: len(theta)], both[len(theta) :]


@dataclass(frozen=True, eq=False)
class _Damped:
    """The damped system (B, P, P), scaled to a unit diagonal; coefficients `stuck` at a bound are taken out of it."""

    system: Array
    scale: Array
    stuck: Array

    @classmethod
    def of(cls, parameters: Parameters, local: _Local, mu: Array) -> "_Damped":
        stuck = ((local.theta <= parameters.low) & (local.gradient > 0)) | (
            (local.theta >= parameters.high) & (local.gradient < 0)
        )
        diagonal = np.maximum(_diagonal(local.majorant), 1e-300)
        diagonal = np.maximum(diagonal, 1e-14 * diagonal.max(axis=1, keepdims=True))
        system = local.hessian + mu[:, None, None] * local.majorant
        _diagonal(system)[:] += 0.1 * mu[:, None] * diagonal
        scale = 1 / np.sqrt(diagonal)
        system = system * scale[:, :, None] * scale[:, None, :]
        if stuck.any():
            system[stuck[:, :, None] | stuck[:, None, :]] = 0.0
        _diagonal(system)[:] += np.where(stuck, 1.0, 1e-16)
        return cls(system, scale, stuck)

    def step(self, gradient: Array) -> Array:
        """The step against `gradient` (B, P), at most LONGEST; stuck coefficients stand still."""
        right = np.where(self.stuck, 0.0, -gradient * self.scale)
        step = _solve(self.system, right) * self.scale
        longest = np.abs(step).max(axis=1, keepdims=True)
        if not np.isfinite(longest).all():
            step = np.where(np.isfinite(step), step, 0.0)
            longest = np.abs(step).max(axis=1, keepdims=True)
        return step * np.minimum(1.0, LONGEST / np.maximum(longest, 1e-300))


def _diagonal(matrices: Array) -> Array:
    """The diagonals (B, P) of matrices (B, P, P), which lie in one piece, to read or to write."""
    return matrices.reshape(len(matrices), -1)[:, :: matrices.shape[1] + 1]


def _solve(system: Array, right: Array) -> Array:
    try:
        return np.linalg.solve(system, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        size = system.shape[1]
        return np.linalg.solve(system + 1e-10 * np.eye(size), right[..., None])[..., 0]
