"""A power law of optima in the compute, drawn over their intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ends = dict[str, float | None]


def power_law_draws(flops: Array, optima: list[Ends], draws: int, seed: int) -> Array:
    """(1 + draws, 2): intercept and slope of ln optimum by ln C, first that of the values. Each draw moves every
    optimum within its interval (a normal on either side); budgets that scatter more than that widen the draws. Without
    draws the optima need no intervals, and count the same."""
    from scipy.special import ndtri

    rng = np.random.default_rng(seed)
    log_c = np.log(flops)
    value = np.log([float(each["value"] or 0) for each in optima])
    if not draws:
        return np.polyfit(log_c, value, 1)[None, ::-1]
    low, high = (np.log([float(each[end] or 0) for each in optima]) for end in ("low", "high"))
    sigma = np.maximum((high - low) / 2 / ndtri(0.9), 1e-9)
    centre = np.average(log_c, weights=1 / sigma**2)
    shifted = np.stack([np.ones_like(log_c), log_c - centre], axis=1)
    solve = np.linalg.pinv(shifted / sigma[:, None]) / sigma
    best = solve @ value
    spare = len(value) - 2
    chi2 = float(np.sum(((value - shifted @ best) / sigma) ** 2))
    widen = np.sqrt(max(1.0, chi2 / spare)) if spare else 1.0
    side = rng.standard_normal((draws, len(value)))
    half = np.where(side < 0, value - low, high - value) / ndtri(0.9)
    drawn = (value + widen * side * half) @ solve.T
    lines = np.vstack([best[None], drawn])
    lines[:, 0] -= lines[:, 1] * centre
    return lines
