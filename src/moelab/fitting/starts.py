"""Where fits start: draw the nonlinear coefficients from the law's box and solve for the linear ones exactly.

A law is linear in its amplitudes once its exponents are fixed, so each start costs one small least-squares problem
(variable projection), and the best of hundreds are already close to the optimum.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.parameters import Parameters
from moelab.fitting.problem import Problem

Array = NDArray[Any]
_FLOOR = 1e-6
"""Smallest share of the loss that a start leaves to a positive amplitude."""


def draw_starts(problem: Problem, weights: Array, count: int, keep: int, seed: int) -> Array:
    """The `keep` best of `count` projected starts, (keep, P), in order of their absolute error in log loss."""
    parameters = problem.parameters
    law = parameters.law
    rng = np.random.default_rng(seed)
    nonlinear = [name for name in parameters.free if name not in law.linear]
    linear = [name for name in parameters.free if name in law.linear]
    values: dict[str, Array] = {name: _draw(parameters, name, rng, count) for name in nonlinear}
    values.update({name: np.ones(count) for name in linear})
    if law.published is not None and all(name in law.published for name in nonlinear):
        for name in nonlinear:
            values[name][0] = law.published[name]
    if linear:
        values |= _project(problem, values, linear, weights)
    theta = parameters.theta(values) if parameters.free else np.zeros((1, 0))
    r = problem.residuals(theta)
    error = np.where(np.isfinite(r).all(axis=1), np.sum(weights * np.abs(r), axis=1), np.inf)
    return theta[np.argsort(error, kind="stable")[:keep]]


def _draw(parameters: Parameters, name: str, rng: np.random.Generator, count: int) -> Array:
    low, high = parameters.law.search[name]
    if name in parameters.law.positive:
        return np.exp(rng.uniform(np.log(low), np.log(high), count))
    return rng.uniform(low, high, count)


def _project(problem: Problem, values: dict[str, Array], linear: list[str], weights: Array) -> dict[str, Array]:
    """The linear coefficients that minimise the squared relative error, positive ones kept positive."""
    law, parameters = problem.parameters.law, problem.parameters
    columns = {name: array[:, None] for name, array in values.items()}
    columns |= {name: np.full((1, 1), value) for name, value in parameters.held.items()}
    for name, member in zip(law.coefficients, parameters.member, strict=True):
        if name not in columns:
            columns[name] = columns[parameters.free[member]]
    with np.errstate(all="ignore"):
        loss, gradient = law.formula(columns, problem.variables)
        basis, target = _system(problem, loss, gradient(), linear, columns)
    usable = np.asarray(np.isfinite(basis).all(axis=(1, 2)) & np.isfinite(target).all(axis=1))
    basis, target = np.where(usable[:, None, None], basis, 1.0), np.where(usable[:, None], target, 0.0)
    positive = np.array([name in law.positive for name in linear])
    root = np.sqrt(weights)[..., None]
    solved, scale = _nonnegative(basis * root, target * root[..., 0], positive)
    least = _FLOOR / np.maximum(scale, 1e-300)
    solved = np.where(positive, np.maximum(solved, least), solved)
    return {name: np.where(usable, solved[:, k], np.nan) for k, name in enumerate(linear)}


def _system(
    problem: Problem, loss: Array, gradient: dict[str, Array], linear: list[str], columns: dict[str, Array]
) -> tuple[Array, Array]:
    """basis (S, n, K) and target (S, n) with basis @ amplitudes ~ target; both relative to what was measured."""
    law, parameters = problem.parameters.law, problem.parameters
    shape = np.broadcast_shapes(loss.shape, (1, len(problem.log_loss)))
    measured = problem.log_loss if law.log_linear else np.exp(problem.log_loss)
    scale = loss if law.log_linear else measured
    terms = np.zeros((*shape, len(linear)))
    for name, member in zip(law.coefficients, parameters.member, strict=True):
        if member >= 0 and parameters.free[member] in linear:
            terms[..., linear.index(parameters.free[member])] += gradient[name] / scale
    unit = np.einsum("...k,k->...", terms, np.ones(len(linear)))
    rest = (np.log(loss) if law.log_linear else loss / scale) - unit
    return terms, (measured if law.log_linear else np.ones(shape)) - rest


def _nonnegative(basis: Array, target: Array, positive: Array) -> tuple[Array, Array]:
    """Least squares in batch; the most negative amplitude that must be positive is dropped until none is."""
    scale = np.sqrt(np.sum(basis * basis, axis=1)) + 1e-300
    unit = basis / scale[:, None, :]
    gram = unit.transpose(0, 2, 1) @ unit
    right = np.einsum("bnk,bn->bk", unit, target)
    size = gram.shape[1]
    kept = np.ones(right.shape, bool)
    for _ in range(size):
        mask = kept[:, :, None] & kept[:, None, :]
        system = np.where(mask, gram, 0.0)
        system[:, np.arange(size), np.arange(size)] += np.where(kept, 1e-12, 1.0)
        solved = np.linalg.solve(system, np.where(kept, right, 0.0)[..., None])[..., 0]
        wrong = np.where(positive & kept, solved, np.inf)
        worst = np.argmin(wrong, axis=1)
        bad = wrong[np.arange(len(wrong)), worst] < 0
        if not bad.any():
            break
        kept[bad, worst[bad]] = False
    solved = np.where(kept, solved, 0.0)
    return solved / scale, scale
