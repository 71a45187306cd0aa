"""The best value of each design of a sweep and its error: a parabola in ln value through the runs around the best one.

A parabola through few noisy runs has no curvature of its own: the designs' curvatures are shrunk towards their mean by
as much as noise explains how they differ (random effects, DerSimonian and Laird 1986), and so is none without noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
WINDOW = 4.0
"""Factor around the best value within which runs shape the parabola."""
FAR = 0.15
"""Excess of a loss over its design's least from which a run is diverged: no sweep bends that far within its window."""
STRAY, TIMES = 0.02, 4.0
"""A run of the window is left out where its excess is above this share of the loss and this multiple of what the
parabola through the best run and its neighbours gives there."""
FEWEST, SPARE = 3, 4
"""Values of a design that a parabola needs, and degrees of freedom from which residuals show the noise."""
LEAST_BEND = 0.2
"""Share of the mean curvature below which noise alone makes a curvature so small."""
_INSIDE = 1e-9


@dataclass(frozen=True, kw_only=True)
class SweepOptima:
    """The best ln value of each design, (m,), by the runs of its window.

    `variance` is that of its noise, `shared` its error where the mean curvature is a standard error off, both squared
    logarithms and logarithms; `spare` the degrees of freedom of the noise. `edge` is -1 or 1 where the optimum lies
    below or above the values that were tried (or next to a diverged one), 0 elsewhere; `tried` (m, 2) are their ends.
    """

    at: Array
    variance: Array
    shared: Array
    spare: int
    edge: Array
    tried: Array


@dataclass(frozen=True)
class Tried:
    """One design's tried values that did not diverge: ln value (n,), excess of the loss over its least, as its share,
    the runs near the best one, and that one with its two neighbours."""

    x: Array
    excess: Array
    near: Array
    inner: Array


def diverged(values: Array, losses: Array, upward: bool) -> Array:
    """Runs (n,) whose loss lies far above the least of their design; `upward`: only of values above the best one's."""
    best = int(np.argmin(losses))
    far = losses > losses[best] * (1 + FAR)
    return np.asarray(far & (values > values[best]) if upward else far)


def tried_values(values: Array, losses: Array, upward: bool) -> Tried | None:
    """One design's sweep, at the best of the other swept settings; None with fewer than three values that did not
    diverge. `upward`: only larger values can diverge (learning rates)."""
    tried = np.unique(values)
    least = np.array([losses[values == value].min() for value in tried])
    at = int(np.argmin(least))
    kept = ~diverged(tried, least, upward)
    kept[max(at - 1, 0) : at] = True  # a coarse sweep still brackets its best value from below
    tried, least = tried[kept], least[kept]
    if len(tried) < FEWEST:
        return None
    at = int(np.argmin(least))
    x, excess = np.log(tried), least / least[at] - 1
    middle = min(max(at, 1), len(x) - 2)
    inner = np.zeros(len(x), bool)
    inner[middle - 1 : middle + 2] = True
    curve = np.polyfit(x[inner] - x[at], excess[inner], 2)
    near = (np.abs(x - x[at]) <= np.log(WINDOW) * (1 + 1e-9)) | inner
    near &= inner | (excess <= np.maximum(STRAY, TIMES * np.polyval(curve, x - x[at])))
    return Tried(x, excess, near, inner)


def sweep_optima(designs: Sequence[Tried], neighbours: bool = False) -> SweepOptima | None:
    """Where each design's loss is least over ln value; None where the losses bend upward in no design on average.

    `neighbours`: by the best run and its two neighbours alone.
    """
    windows = [each.inner if neighbours else each.near for each in designs]
    curves = [_Parabola.of(each.x[rows], each.excess[rows]) for each, rows in zip(designs, windows, strict=True)]
    noise, spare = _noise(designs, curves)
    bends = np.array([curve.bend for curve in curves])
    errors = noise * np.array([curve.unit[2, 2] for curve in curves])
    mean, error, between = _random_effects(bends, errors)
    if not mean > 0:
        return None
    own = np.where(errors > 0, between / np.maximum(between + errors, 1e-300), 1.0)
    used = np.maximum(own * bends + (1 - own) * mean, LEAST_BEND * mean * (1 - own))
    used = np.where(used > 0, used, LEAST_BEND * mean)
    spread = own**2 * errors + (1 - own) ** 2 * between
    found = [curve.vertex(bend) for curve, bend in zip(curves, used, strict=True)]
    at, slope = np.array(found).T
    across = np.array([curve.across for curve in curves])
    variance = noise / across / (2 * used) ** 2 + slope**2 * spread
    places = zip(designs, at, np.sqrt(variance), strict=True)
    return SweepOptima(
        at=at,
        variance=variance,
        shared=slope * (1 - own) * np.sqrt(error),
        spare=spare,
        edge=np.array([_edge(*each) for each in places]),
        tried=np.array([(each.x[0], each.x[-1]) for each in designs]),
    )


def _edge(tried: Tried, at: float, error: float) -> int:
    """The side on which the best value lies beyond those tried.

    Where the best run is the outermost one, the optimum is nearer to it than to the next, unless noise chose it: the
    optimum must then lie half a step inside, less its standard error.
    """
    x, best = tried.x, int(np.argmin(tried.excess))
    first, last = (max(0.0, step / 2 - error) for step in (x[1] - x[0], x[-1] - x[-2]))
    low, high = x[0] + first * (best == 0), x[-1] - last * (best == len(x) - 1)
    return -1 if at < low + _INSIDE else 1 if at > high - _INSIDE else 0


@dataclass(frozen=True)
class _Parabola:
    """A least-squares parabola about the middle `centre` of its runs: `bend` its second coefficient, `unit` (3, 3) the
    covariance for noise of 1, `left` and `spare` the residuals' squares and degrees of freedom."""

    centre: float
    u: Array
    y: Array
    bend: float
    unit: Array
    left: float
    spare: int

    @classmethod
    def of(cls, x: Array, y: Array) -> "_Parabola":
        u = x - x.mean()
        design = np.stack([np.ones_like(u), u, u * u], axis=1)
        unit = np.linalg.inv(design.T @ design)
        found = unit @ design.T @ y
        left = float(np.sum((y - design @ found) ** 2))
        return cls(float(x.mean()), u, y, float(found[2]), unit, left, len(x) - 3)

    @property
    def across(self) -> float:
        """The runs' sum of squares along the axis."""
        return float(self.u @ self.u)

    def vertex(self, bend: float) -> tuple[float, float]:
        """Where a parabola of this bend through the runs is least, and the derivative of that by the bend."""
        rise = float(self.u @ self.y) / self.across
        skew = float(np.sum(self.u**3)) / self.across
        return self.centre + (skew * bend - rise) / (2 * bend), rise / (2 * bend**2)


def _noise(designs: Sequence[Tried], curves: Sequence[_Parabola]) -> tuple[float, int]:
    """The variance of one run's excess, and its degrees of freedom: by residuals within the windows, else by those of
    every value that did not diverge, else by how the curvatures differ."""
    spare = sum(curve.spare for curve in curves)
    if spare >= SPARE:
        return sum(curve.left for curve in curves) / spare, spare
    whole = [_Parabola.of(each.x, each.excess) for each in designs]
    spare = sum(curve.spare for curve in whole)
    if spare >= SPARE:
        return sum(curve.left for curve in whole) / spare, spare
    if len(curves) < 2:
        return 0.0, 1
    bends, weights = np.array([curve.bend for curve in curves]), 1 / np.array([c.unit[2, 2] for c in curves])
    mean = np.average(bends, weights=weights)
    return float(np.sum(weights * (bends - mean) ** 2)) / (len(curves) - 1), len(curves) - 1


def _random_effects(values: Array, variances: Array) -> tuple[float, float, float]:
    """The mean, its variance, and the variance between values beyond their own."""
    weights = 1 / np.maximum(variances, 1e-30)
    mean = np.average(values, weights=weights)
    between = 0.0
    if len(values) > 1:
        beyond = float(np.sum(weights * (values - mean) ** 2)) - (len(values) - 1)
        between = max(0.0, beyond / (weights.sum() - np.sum(weights**2) / weights.sum()))
    weights = 1 / np.maximum(variances + between, 1e-30)
    return float(np.average(values, weights=weights)), float(1 / weights.sum()), between
