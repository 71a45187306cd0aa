"""The robust optimum of many starts, and how well it is determined."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.observations import Observations
from moelab.fitting.parameters import Parameters, known_name
from moelab.fitting.problem import Problem
from moelab.fitting.solver import minimise
from moelab.fitting.starts import draw_starts
from moelab.laws import Law

Array = NDArray[Any]
SEARCHED, SPREAD = 5_000, 2_000
"""Rows among which starts are searched, and rows over which the mean interval is taken; a sample of larger tables."""
_AGREE = 1e-6
NOT_IDENTIFIED, SHARE = 1e8, 0.1
"""Ratio of singular values beyond which a direction is not identified; the share of it that marks a coefficient."""
MOST_OFF = 100.0
"""Largest factor between predicted and measured loss that a fit may start from."""
STARTS, REFINED = 512, 16


def enough_rows(
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
    stay = "stays at its published value" if len(held) == 1 else "stay at published values"
    return parameters, [f"only {rows} rows: {', '.join(held)} {stay}"]


def point_fit(problem: Problem, weights: Array, starts: int, seed: int) -> tuple[Array, Array, int, int]:
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


def predicted_losses(
    law: Law, coefficients: Mapping[str, float], data: Observations, fix: Mapping[str, float]
) -> Array:
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


def coefficients_at(parameters: Parameters, theta: Array) -> dict[str, float]:
    return {name: float(values[0, 0]) for name, values in parameters.coefficients(theta[None]).items()}


def at_bound(parameters: Parameters, theta: Array) -> tuple[str, ...]:
    near = 1e-6 * (1 + np.abs(theta))
    touching = (theta - parameters.low < near) | (parameters.high - theta < near)
    return tuple(name for name, at in zip(parameters.free, touching, strict=True) if at)


def determination(problem: Problem, theta: Array, weights: Array) -> tuple[float, tuple[str, ...]]:
    """How well the runs determine the solver's parameters: the condition of the derivative of log loss by them, and
    the coefficients that the runs do not identify (those along which the predictions stand still)."""
    if not len(theta):
        return 1.0, ()
    _, jacobian = problem.linearise(theta[None])
    # The triangle of a QR has the same singular values and is small.
    triangle = np.linalg.qr(np.sqrt(weights[0])[:, None] * jacobian[0], mode="r")
    _, values, directions = np.linalg.svd(triangle)
    flat = np.abs(directions[values * NOT_IDENTIFIED < values[0]])
    names = problem.parameters.free
    flat = np.concatenate([flat, _parallel(np.asarray(triangle))])
    free = tuple(name for name, share in zip(names, flat.max(axis=0, initial=0.0), strict=True) if share > SHARE)
    return (float(values[0] / values[-1]) if values[-1] > 0 else float("inf")), free


def _parallel(triangle: Array) -> Array:
    """Directions (k, P), as shares, along which derivatives of any size cancel: an amplitude and the exponent of a
    variable of one value only, whose derivatives differ by the logarithm of that value."""
    size = np.linalg.norm(triangle, axis=0)
    scale = np.where(size > 0, size, 1.0)
    _, values, directions = np.linalg.svd(triangle / scale)
    return np.abs(directions[values * NOT_IDENTIFIED < values[0]])


def error_measures(measured: Array, predicted: Array) -> dict[str, float]:
    relative = predicted / measured - 1
    return {
        "rmse": float(np.sqrt(np.mean((predicted - measured) ** 2))),
        "rmse_log": float(np.sqrt(np.mean(np.log(predicted / measured) ** 2))),
        "mean_abs_rel": float(np.mean(np.abs(relative))),
    }
