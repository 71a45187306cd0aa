"""The best value of one design's sweep: a parabola in ln value through the runs around the best one."""

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


@dataclass(frozen=True, kw_only=True)
class SweepOptimum:
    """The best value of a sweep, and that by the best run and its two neighbours alone."""

    value: float
    neighbours: float


def diverged(values: Array, losses: Array, upward: bool) -> Array:
    """Runs (n,) whose loss lies far above the least of their design; `upward`: only of values above the best one's."""
    best = int(np.argmin(losses))
    far = losses > losses[best] * (1 + FAR)
    return np.asarray(far & (values > values[best]) if upward else far)


def sweep_optimum(values: Array, losses: Array, upward: bool) -> SweepOptimum | None:
    """Where the loss is least over ln value, at the best of the other swept settings; None at an edge, which is also
    where the next value diverges. `upward`: only larger values can diverge (learning rates)."""
    tried = np.unique(values)
    least = np.array([losses[values == value].min() for value in tried])
    at = int(np.argmin(least))
    kept = ~diverged(tried, least, upward)
    kept[max(at - 1, 0) : at] = True  # a coarse sweep still brackets its best value from below
    tried, least = tried[kept], least[kept]
    at = int(np.argmin(least))
    if at in (0, len(tried) - 1):
        return None
    x = np.log(tried / tried[at])
    inner = np.zeros(len(tried), bool)
    inner[at - 1 : at + 2] = True
    curve = np.polyfit(x[inner], least[inner], 2)
    excess = least - least[at]
    near = (np.abs(x) <= np.log(WINDOW) * (1 + 1e-9)) | inner
    near &= inner | (excess <= np.maximum(STRAY * abs(least[at]), TIMES * (np.polyval(curve, x) - least[at])))
    ends = x[at - 1], x[at + 1]
    found = (_vertex(np.polyfit(x[rows], least[rows], 2), ends) for rows in (near, inner))
    whole, neighbours = (float(tried[at] * np.exp(each)) for each in found)
    return SweepOptimum(value=whole, neighbours=neighbours)


def _vertex(curve: Array, ends: tuple[float, float]) -> float:
    bend, slope, _ = curve
    return float(np.clip(-slope / (2 * bend) if bend > 0 else 0.0, *ends))
