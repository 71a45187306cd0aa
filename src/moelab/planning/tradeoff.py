"""Loss traded against cost: the frontier of two columns, the slope of its chord, and what a balance of them holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Lifetime:
    """Lifetime cost of all ranked designs. `train` and `serve` (n,) are dollars; `within` is an excess of compute.

    `frontier` holds positions from the cheapest to the least loss, `knee` one of them; the score of the balance is
    log(C/C') + `slope` x dollars. `ensemble_excess` (n,) is log(C/C') without what laws of granularity add to it.
    """

    train: Array
    serve: Array
    within: float
    slope: float
    frontier: Array
    knee: int
    ensemble_excess: Array

    @property
    def cost(self) -> Array:
        """Dollars of training and serving (n,)."""
        return self.train + self.serve


def frontier(excess: Array, cost: Array) -> Array:
    """Positions that no other design matches in both and beats in one, from the cheapest to the least excess."""
    finite = np.flatnonzero(np.isfinite(excess) & np.isfinite(cost))
    lowest = finite[excess[finite] == excess[finite].min(initial=np.inf)]
    # What costs more than the cheapest design of least excess is on no frontier; few designs are left to sort.
    finite = finite[cost[finite] <= cost[lowest].min(initial=np.inf)]
    order = finite[np.lexsort((excess[finite], cost[finite]))]
    least = np.minimum.accumulate(excess[order])
    first = np.concatenate([[True], excess[order][1:] < least[:-1]])
    return np.asarray(order[first])


def chord_slope(excess: Array, cost: Array) -> float:
    """Log compute given per dollar along the chord of a frontier, from the cheapest on; 0 where it is a point."""
    span = float(cost[-1] - cost[0])
    return float((excess[0] - excess[-1]) / span) if span > 1e-9 * abs(cost[0]) else 0.0
