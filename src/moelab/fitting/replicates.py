"""Bootstrap replicates of a fit: each solved in full, or, for large tables, by Newton steps from the optimum.

A replicate of many rows lies so close to the optimum that steps with the optimum's own curvature reach it (a k-step
bootstrap, Davidson and MacKinnon 1999). The rows pass in blocks, so memory does not grow with replicates times rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.observations import Observations
from moelab.fitting.problem import Problem
from moelab.fitting.solver import CHUNK, minimise

Array = NDArray[Any]
Progress = Callable[[float], None]
"""Called with the share of the work that is done, 0 to 1."""
MOST_SOLVED = 5_000
"""Rows above which replicates take Newton steps from the optimum."""
PASSES = 3
SHORT = 0.05
"""A further step, relative to the median distance from the optimum, above which the solver finishes a replicate."""
HELD, TOGETHER = 4_000_000, 64
"""Weights held at once (replicates times rows), and the most replicates that step together."""


def bootstrap(
    problem: Problem, modes: Array, data: Observations, count: int, seed: int, progress: Progress | None = None
) -> Array:
    """Coefficients of every replicate, (count, number of coefficients), in the law's order.

    Each replicate starts from every distinct optimum in `modes` (M, P) and keeps its best.
    """
    names = problem.parameters.law.coefficients
    if not count:
        return np.empty((0, len(names)))
    free = len(problem.parameters.free)
    solved = _solved(problem, modes, data, count, seed) if not steps(data, free) else None
    theta = np.empty((count, free))
    done = 0
    for part in solved or _stepped(problem, modes, data, count, seed):
        theta[done : done + len(part)] = part
        done += len(part)
        if progress is not None:
            progress(done / count)
    columns = problem.parameters.coefficients(theta)
    return np.concatenate([columns[name] for name in names], axis=1)


def steps(data: Observations, free: int) -> bool:
    """Whether the replicates of this table take Newton steps from the optimum."""
    return len(data) > MOST_SOLVED and free > 0


def resample(data: Observations, count: int, seed: int, free: int) -> Array:
    """How often each run is drawn, (count, n), by run or by whole group; draws of too few distinct runs are redone."""
    rng = np.random.default_rng(seed)
    n = len(data)
    labels, units = _units(data)
    times = rng.multinomial(units, np.full(units, 1 / units), size=count)
    if data.groups is None and n > free + 1:
        for _ in range(50):
            thin = np.flatnonzero(np.count_nonzero(times, axis=1) <= free)
            if not len(thin):
                break
            times[thin] = rng.multinomial(units, np.full(units, 1 / units), size=len(thin))
    return times[:, labels].astype(float)


def _units(data: Observations) -> tuple[Array, int]:
    """The unit of each row, (n,), and how many there are: what a bootstrap draws."""
    labels = np.arange(len(data)) if data.groups is None else np.unique(data.groups, return_inverse=True)[1]
    units = int(labels.max()) + 1
    if units < 2:
        raise InputError("group: the bootstrap needs at least two groups")
    return labels, units


def _solved(problem: Problem, modes: Array, data: Observations, count: int, seed: int) -> Iterator[Array]:
    """Every replicate by the solver, in blocks (b, P)."""
    weights = resample(data, count, seed, len(problem.parameters.free)) * data.weights
    size = max(1, CHUNK // len(data))
    for first in range(0, count, size):
        block = weights[first : first + size]
        ends = [
            minimise(problem, np.repeat(mode[None], len(block), axis=0), block, steps=40, tolerance=1e-9)
            for mode in modes
        ]
        yield _best([end.theta for end in ends], [end.value for end in ends])


def _stepped(problem: Problem, modes: Array, data: Observations, count: int, seed: int) -> Iterator[Array]:
    """Every replicate by Newton steps from each optimum, in blocks (b, P)."""
    rng = np.random.default_rng(seed)
    labels, units = _units(data)
    curvatures = [curvature_at(problem, mode, data.weights) for mode in modes]
    size = max(1, min(TOGETHER, HELD // len(data)))
    for first in range(0, count, size):
        drawn = [np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(min(size, count - first))]
        weights = np.stack(drawn)[:, labels] * data.weights
        ends = [_descend(problem, *pair, weights) for pair in zip(modes, curvatures, strict=True)]
        yield _best([theta for theta, _ in ends], [value for _, value in ends])


def _best(thetas: list[Array], values: list[Array]) -> Array:
    """Of several ends per replicate, (b, P) each, the one with the lowest objective."""
    theta, value = thetas[0], values[0]
    for other, new in zip(thetas[1:], values[1:], strict=True):
        theta, value = np.where((new < value)[:, None], other, theta), np.minimum(new, value)
    return theta


def _descend(problem: Problem, mode: Array, curvature: Array, weights: Array) -> tuple[Array, Array]:
    """From one optimum (P,) to each replicate's own: theta (b, P) and its objective (b,).

    Replicates that the steps leave short, in a valley that bends, are finished by the solver.
    """
    parameters = problem.parameters
    theta = np.repeat(mode[None], len(weights), axis=0)
    value, slope = _evaluate(problem, theta, weights)
    step = _newton(problem, theta, slope, curvature)
    for _ in range(PASSES):
        trial = np.clip(theta + step, parameters.low, parameters.high)
        new, turned = _evaluate(problem, trial, weights)
        better = (new < value)[:, None]
        onward = _newton(problem, trial, turned, curvature)
        theta, value = np.where(better, trial, theta), np.minimum(new, value)
        step = np.where(better, onward, 0.5 * step)
    far = np.median(np.abs(theta - mode), axis=0)
    short = np.flatnonzero((np.abs(step) > SHORT * far).any(axis=1))
    if len(short):
        end = minimise(problem, theta[short], weights[short], steps=40, tolerance=1e-9)
        theta[short], value[short] = end.theta, end.value
    return theta, value


@np.errstate(all="ignore")
def _evaluate(problem: Problem, theta: Array, weights: Array) -> tuple[Array, Array]:
    """The objective (b,) and its gradient (b, P), in blocks of rows that fit the cache."""
    value, slope = np.zeros(len(theta)), np.zeros(theta.shape)
    size = max(1, CHUNK // len(theta))
    for first in range(0, len(problem.log_loss), size):
        rows = slice(first, first + size)
        part, weight = problem.take(rows), weights[:, rows]
        r, jacobian = part.linearise(theta)
        value += part.raw_total(r, weight)
        slope -= ((weight * problem.objective.slope(r))[:, None, :] @ jacobian)[:, 0]
    return value, slope


def curvature_at(problem: Problem, mode: Array, weights: Array) -> Array:
    """The objective's second derivative at an optimum, (P, P).

    Huber's is a count of the runs within delta. Where those are few, a wider window of a fifth of the residuals'
    spread counts them with less scatter, scaled back by its width.
    """
    r = problem.residuals(mode[None])[0]
    spread = 1.4826 * float(np.median(np.abs(r - np.median(r))))
    objective, scale = problem.objective, 1.0
    if np.isfinite(objective.delta) and 0.2 * spread > objective.delta:
        scale = objective.delta / (0.2 * spread)
        objective = replace(objective, delta=0.2 * spread)
    total = np.zeros((len(mode), len(mode)))
    for first in range(0, len(r), CHUNK):
        rows = slice(first, first + CHUNK)
        r_part, jacobian = problem.take(rows).linearise(mode[None])
        weight = scale * weights[rows] * objective.curvature(r_part[0])
        total += jacobian[0].T @ (weight[:, None] * jacobian[0])
    return total


def _newton(problem: Problem, theta: Array, slope: Array, curvature: Array) -> Array:
    """The step (b, P) to where the quadratic model is least; coefficients pressed against a bound stand still."""
    parameters, size = problem.parameters, len(curvature)
    stuck = ((theta <= parameters.low) & (slope > 0)) | ((theta >= parameters.high) & (slope < 0))
    scale = 1 / np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    system = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, curvature * scale[:, None] * scale)
    system[:, np.arange(size), np.arange(size)] = np.where(stuck, 1.0, 1 + 1e-10)
    right = np.where(stuck, 0.0, -slope * scale)
    step = np.linalg.solve(system, right[..., None])[..., 0] * scale
    return np.where(np.isfinite(step), step, 0.0)
