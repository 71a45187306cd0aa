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
