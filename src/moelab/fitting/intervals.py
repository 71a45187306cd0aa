"""A value with its 80 % interval over draws, and whether the value lies in it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.checks import FEWEST_IN_INTERVAL

Array = NDArray[Any]
RANGE = (10, 90)


def interval_of(value: float, draws: Array) -> dict[str, float | None]:
    """A value with the 10th and 90th percentile of its draws, null where there are fewer than ten."""
    if len(draws) < FEWEST_IN_INTERVAL:
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(draws, RANGE)
    return {"value": value, "low": float(low), "high": float(high)}


def lies_outside(value: float | None, low: float | None, high: float | None) -> bool:
    """Whether a value lies outside its own interval by more than rounding. An open end holds everything."""
    if value is None:
        return False
    slack = 1e-9 * abs(value)
    return (low is not None and value < low - slack) or (high is not None and value > high + slack)


def outside_note(name: str, ends: dict[str, float | None], what: str = "draws") -> list[str]:
    """A note on a value that its own interval does not hold."""
    if not lies_outside(ends["value"], ends["low"], ends["high"]):
        return []
    return [f"the value of {name} lies outside its interval: most {what} lie on one side of it, so it is biased"]
