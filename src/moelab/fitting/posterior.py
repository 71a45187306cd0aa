"""The most probable coefficients under a prior: a batched Gauss-Newton method for robust residuals and a normal prior.

The prior makes every coefficient's curvature positive, so that fits of a handful of runs are well posed. A step solves
(H + mu M) s = -g as in `solver`: H is the penalty's own curvature, M that of the parabola above it, both with the
prior's. A block is (B, ...) replicates: each with its own weights of the runs and its own mean of the prior.
"""

from dataclasses import dataclass
from math import erf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.objective import Objective
from moelab.fitting.prior import by_coordinates, to_coefficients
from moelab.laws import Law

Array = NDArray[Any]
STEPS, RETRIES, LONGEST = 60, 6, 2.0
"""Steps of a fit, tries of one step, and the longest step in standard deviations of the prior, per coordinate."""
BLOCK = 60_000
"""Replicates times runs handled together."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """n runs: the law's variables, log losses (n,), weights (n,), and the coordinates' limits (P,)."""

    law: Law
    variables: dict[str, Array]
    log_loss: Array
    weights: Array
    objective: Objective
    low: Array
    high: Array

    def predict(self, theta: Array) -> Array:
        """Log predictions (B, n) at coordinates (B, P)."""
        with np.errstate(all="ignore"):
            loss = self.law.formula(to_coefficients(self.law, theta), self.variables)[0]
            return np.log(np.broadcast_to(loss, (len(theta), len(self.log_loss))))

    def linearise(self, theta: Array) -> tuple[Array, Array]:
        """Residuals (B, n) and d log(prediction) / d theta (B, n, P)."""
        coefficients = to_coefficients(self.law, theta)
        with np.errstate(all="ignore"):
            loss, gradient = self.law.formula(coefficients, self.variables)
            loss = np.broadcast_to(loss, (len(theta), len(self.log_loss)))
            jacobian = by_coordinates(self.law, gradient(), coefficients, loss)
            return self.log_loss - np.log(loss), jacobian


def temperature(objective: Objective, noise: float) -> float:
    """What a sum of penalties is divided by to be a negative log-likelihood, for normal noise of this spread.

    It equates the variance of the penalty's slope with its curvature: noise^2 for squares.
    """
    if not np.isfinite(objective.delta):
        return noise**2
    z = objective.delta / noise
    inside = erf(z / np.sqrt(2))
    squares = inside - np.sqrt(2 / np.pi) * z * np.exp(-0.5 * z * z) + z * z * (1 - inside)
    return noise**2 * float(squares) / inside


def maximise(
    evidence: Evidence, start: Array, mean: Array, precision: Array, weights: Array, noise: float, steps: int = STEPS
) -> tuple[Array, Array]:
    """Coordinates (B, P) and the negative log-posterior (B,) reached from `start`; all of (B, P), weights (B, n)."""
    size = max(1, BLOCK // max(1, len(evidence.log_loss)))
    parts = [
        _maximise(evidence, start[i : i + size], mean[i : i + size], precision, weights[i : i + size], noise, steps)
        for i in range(0, len(start), size)
    ]
    return np.concatenate([theta for theta, _ in parts]), np.concatenate([value for _, value in parts])


def _maximise(
    evidence: Evidence, start: Array, mean: Array, precision: Array, weights: Array, noise: float, steps: int
) -> tuple[Array, Array]:
    heat = temperature(evidence.objective, noise)
    spread = 1 / np.sqrt(np.diag(precision))
    theta = np.clip(start, evidence.low, evidence.high)
    value = _value(evidence, theta, mean, precision, weights, heat)
    mu = np.ones(len(theta))
    active = np.arange(len(theta))
    for _ in range(steps):
        at, before = active, value[active]
        r, jacobian = evidence.linearise(theta[at])
        slope = weights[at] * evidence.objective.slope(r) / heat
        bent, flipped = weights[at][..., None] / heat * jacobian, jacobian.transpose(0, 2, 1)
        own = flipped @ (evidence.objective.curvature(r)[..., None] * bent) + precision
        majorant = flipped @ (evidence.objective.majorizer(r)[..., None] * bent) + precision
        gradient = (theta[at] - mean[at]) @ precision - (slope[:, None, :] @ jacobian)[:, 0]
        rows = np.arange(len(at))
        for _ in range(RETRIES):
            place = at[rows]
            system = own[rows] + mu[place, None, None] * majorant[rows]
            trial = _step(evidence, theta[place], gradient[rows], system, spread)
            new = _value(evidence, trial, mean[place], precision, weights[place], heat)
            better = new < value[place]
            theta[place[better]], value[place[better]] = trial[better], new[better]
            mu[place] = np.clip(np.where(better, mu[place] * 0.2, mu[place] * 8.0), 1e-10, 1e10)
            rows = rows[~better]
            if not len(rows):
                break
        active = at[before - value[at] > 1e-9 * (1 + np.abs(before))]
        if not len(active):
            break
    return theta, value


def _value(evidence: Evidence, theta: Array, mean: Array, precision: Array, weights: Array, heat: float) -> Array:
    r = evidence.log_loss - evidence.predict(theta)
    bad = ~np.isfinite(r).all(axis=1)
    fit = np.sum(weights * evidence.objective.penalty(np.where(np.isfinite(r), r, 0.0)), axis=1) / heat
    off = theta - mean
    return np.where(bad, np.inf, fit + 0.5 * np.einsum("bp,pq,bq->b", off, precision, off))


def _step(evidence: Evidence, theta: Array, gradient: Array, system: Array, spread: Array) -> Array:
    """The damped step; coordinates pressed against a limit stand still."""
    stuck = ((theta <= evidence.low) & (gradient > 0)) | ((theta >= evidence.high) & (gradient < 0))
    index = np.arange(theta.shape[1])
    free = ~stuck
    system = np.where(free[:, :, None] & free[:, None, :], system, 0.0)
    system[:, index, index] += np.where(stuck, 1.0, 0.0)
    step = np.linalg.solve(system, np.where(stuck, 0.0, -gradient)[..., None])[..., 0]
    step *= np.minimum(1.0, LONGEST / np.maximum(np.max(np.abs(step) / spread, axis=1, keepdims=True), 1e-300))
    return np.clip(theta + step, evidence.low, evidence.high)


def information(evidence: Evidence, theta: Array, noise: float) -> Array:
    """The runs' information on the coordinates (P,) at one point, (P, P): without the prior's."""
    jacobian = evidence.linearise(theta[None])[1]
    heat = temperature(evidence.objective, noise)
    delta = evidence.objective.delta
    # Huber's expected curvature under the noise; a count of the runs within delta scatters where delta is small.
    inside = erf(delta / noise / np.sqrt(2)) if np.isfinite(delta) else 1.0
    weight = evidence.weights * inside / heat
    return np.asarray((jacobian[0] * weight[:, None]).T @ jacobian[0])
