"""What a coefficient's bootstrap draws support: ends of its interval, or that it has none, and why."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.intervals import lies_outside
from moelab.fitting.parameters import limits_of
from moelab.laws import Law

Array = NDArray[Any]
LEVEL = 0.8


def coefficient_ends(law: Law, name: str, draws: Array) -> tuple[float | None, float | None]:
    """The 10th and 90th percentile of draws (B,); an end that is the bound of the coefficient is None: open."""
    low, high = (float(end) for end in np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    bottom, top = limits_of(law, name)
    below, above = np.isclose(low, bottom, rtol=1e-5, atol=0), np.isclose(high, top, rtol=1e-5)
    return None if below else low, None if above else high


def coefficient_note(
    value: float, ends: tuple[float | None, float | None], draws: Array, *, held: bool, at_bound: bool, identified: bool
) -> str:
    """What is to be known of a coefficient before its interval is read; '' for nothing."""
    if held:
        return "held"
    if not identified:
        return "at a bound, not identified" if at_bound else "not identified"
    if at_bound:
        return "at a bound"
    if not len(draws):
        return ""
    low, high = ends
    if low is None or high is None:
        return "not bounded" if low is high else f"not bounded {'below' if low is None else 'above'}"
    return f"outside: draws centre on {np.nanmedian(draws):.4g}" if lies_outside(value, low, high) else ""
