"""What joins the slices of several budgets: the tokens at each optimum, and the power laws of the optima in C."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.budget_groups import ONE_COMPUTE
from moelab.fitting.power_law import power_law_draws
from moelab.fitting.slice import Slice

Array = NDArray[Any]
SAME = 1e-6
"""Relative distance below which two numbers of FLOPs are one."""
Ends = dict[str, float | None]
Key = float | str
"""A group of runs by its FLOPs, or by its value of the column that parts them."""
_PARABOLA = ("parabola", "all")


def tokens_at(optimum: Ends, x: Array, tokens: Array) -> Ends:
    """The tokens of runs of this budget at an optimum, interpolated in logarithms; more of x may mean fewer tokens."""
    order = np.argsort(x, kind="stable")
    log_x, log_d = np.log(x[order]), np.log(tokens[order])
    slope = np.polyfit(log_x, log_d, 1)[0]

    def at(value: float | None) -> float | None:
        if value is None or not value > 0:
            return None
        inside = float(np.clip(np.log(value), log_x[0], log_x[-1]))
        return float(np.exp(np.interp(inside, log_x, log_d) + slope * (np.log(value) - inside)))

    low, high = at(optimum["low"]), at(optimum["high"])
    low, high = (high, low) if slope < 0 else (low, high)
    return {"value": at(optimum["value"]), "low": low, "high": high}


def power_laws(
    x: str, slices: dict[Key, Slice], compute: dict[Key, float], tokens: dict[Key, Ends], draws: int, seed: int
) -> tuple[dict[str, Array], Array | None]:
    """Intercepts and slopes of ln optimum by ln C, drawn, by name; and the line of the parabolas' lowest points. Both
    are of the slices that hold their optimum, where those are of more than one compute."""
    inside = {key: one for key, one in slices.items() if one.edge is None and (_bounded(one.optimum) or not draws)}
    spread = [compute[key] for key in inside]
    if len(inside) < 2 or max(spread) <= ONE_COMPUTE * min(spread):
        return {}, None
    lines = {}
    named = {x: {key: one.optimum for key, one in inside.items()}}
    named["tokens"] = {key: tokens[key] for key in inside if key in tokens}
    for name, ends in named.items():
        if len(ends) >= 2 and all((_bounded(each) or not draws) and (each["value"] or 0) > 0 for each in ends.values()):
            flops = np.array([compute[key] for key in ends])
            lines[name] = power_law_draws(flops, list(ends.values()), draws, seed)
    lowest = {
        key: curve.at
        for key, one in inside.items()
        for curve in one.curves
        if (curve.name, curve.window) == _PARABOLA and np.isfinite(curve.at)
    }
    logged = len(lowest) >= 2 and all((slices[key].points[0] > 0).all() for key in lowest)
    logs = np.log([compute[key] for key in lowest])
    return lines, np.polyfit(logs, list(lowest.values()), 1)[::-1] if logged else None


def _bounded(ends: Ends) -> bool:
    return all(value is not None for value in ends.values())


def once(flops: list[float]) -> list[float]:
    """Without those that another one equals but for rounding: 1e21 and ten times a budget of 1e20."""
    kept: list[float] = []
    for each in flops:
        if not any(abs(each / other - 1) < SAME for other in kept):
            kept.append(each)
    return kept
