"""Pieces that several papers share: saturation of an axis, the floor of a power law, compute spent as 6 N D."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def saturate(x: Any, start: Any, end: Any) -> tuple[Array, Array, Array]:
    """Clark's saturated axis (arXiv 2202.01169): 1/y = 1/(x + h) + 1/end with 1/h = 1/start - 1/end, so y(0) = start.

    Returns y, dy/dstart, dy/dend. `x` is E - 1 for expert counts and A for Ling's activation ratio.
    """
    h = 1 / (1 / start - 1 / end)
    y = 1 / (1 / (x + h) + 1 / end)
    slope = y * y / (x + h) ** 2
    return y, slope * (h / start) ** 2, y * y / end**2 - slope * (h / end) ** 2


def minimum(a: Any, b: Any) -> Array:
    """Elementwise minimum by real part, so that the complex step passes through."""
    return np.where(np.real(a) < np.real(b), a, b)


def power_law_at_compute(params: Array, flops: float, settings: Any) -> dict[str, Array]:
    """C = 6 N D for a dense model whose N is `params_total`."""
    return {"params_total": params, "params_active": params, "tokens": flops / (6 * params)}
