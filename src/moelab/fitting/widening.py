"""How much wider than its draws a fit's intervals must be, measured where it predicts its own most expensive runs.

Draws show what the runs leave open of a law's coefficients. They do not show that a law is not quite right, which
counts most outside the fitted range. So the cheapest runs of the same table predict the others, twice: from half and
from two thirds of them. The draws' deviations are multiplied until four of five of those runs lie inside their 80 %
intervals (normalised split-conformal prediction, Lei et al. 2018, arXiv 1604.04173). The factor is never below 1.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.coefficients import LEVEL
from moelab.fitting.observations import Observations
from moelab.fitting.prediction import Prediction

Array = NDArray[Any]


class Predicts(Protocol):
    """What a fit to a part of the runs is asked for."""

    def predict(self, table: Any = None, *, noise: bool = False) -> Prediction:
        """Losses with the intervals of one more measured run."""
        ...


SHARES = (1 / 2, 2 / 3)
"""Shares of the runs, cheapest first, that predict the others."""
FEWEST = 6
"""Runs from which the factor is measured: three predict three."""
MOST_RUNS, MOST_DRAWS = 1_000, 200
"""Of a larger table, so many runs evenly spaced in compute; and the draws of a fit to a part."""
SLACK = 1 - 1e-6
"""Runs of one budget stay together where their FLOPs differ by rounding."""


def held_out_factor(data: Observations, fit_part: Callable[[Observations], Predicts]) -> tuple[float, int]:
    """The factor, and from how many predictions of held-out runs it was measured: 1.0 and 0 where they are too few.

    `fit_part` fits a part of the runs.
    """
    if data.order is None or len(data) < FEWEST:
        return 1.0, 0
    order = np.argsort(data.order, kind="stable")
    if len(order) > MOST_RUNS:
        order = order[np.linspace(0, len(order) - 1, MOST_RUNS).round().astype(int)]
    ratios = [ratio for share in SHARES for ratio in _ratios(data.take(order), share, fit_part)]
    return (max(1.0, conformal(np.array(ratios))), len(ratios)) if ratios else (1.0, 0)


def conformal(ratios: Array, level: float = LEVEL) -> float:
    """The factor at which intervals hold a further run with this probability, from |error| / half-width (n,) of n."""
    rank = int(np.ceil((len(ratios) + 1) * level))
    return float(np.sort(ratios)[min(rank, len(ratios)) - 1])


def _ratios(data: Observations, share: float, fit_part: Callable[[Observations], Predicts]) -> Array:
    """|error| over half the width of the 80 % interval, both of log losses, of the runs beyond the cheapest `share`."""
    assert data.order is not None
    held = data.order >= data.order[int(share * len(data))] * SLACK
    seen, unseen = data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))
    if len(seen) < FEWEST // 2 or np.ptp(seen.measured) == 0:
        return np.zeros(0)
    found = fit_part(seen).predict(unseen.variables, noise=True)
    ratios = np.abs(np.log(unseen.measured / found.value)) / (0.5 * np.log(found.high / found.low))
    return np.asarray(ratios[np.isfinite(ratios)])


def widened(losses: Array, values: Array, factor: float) -> Array:
    """Draws' losses (R, n) with their log deviations from `values` (n,) multiplied by the factor."""
    if factor == 1.0:
        return losses
    with np.errstate(all="ignore"):
        return np.asarray(values * (losses / values) ** factor)
