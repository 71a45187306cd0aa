"""Loss traded against cost: the frontier of two columns, and what a balance of them holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.reference import Reference

Array = NDArray[Any]

BINS = 1024
"""Bins of cost by which most designs are left out before the frontier is sorted."""


@dataclass(frozen=True)
class Lifetime:
    """Lifetime cost of all ranked designs. `train` and `serve` (n,) are dollars.

    `balance` (n,) is the excess of compute plus the log of the cost, `most` the excess allowed in the same logarithm.
    `within` is the excess of compute, as a share, that the balance allows over the least loss under compute and data
    alone; `attainable` is whether some design is within it, `decides` whether it changes the choice. `frontier` holds
    positions from the cheapest to the least loss, `knee` one of them. `ensemble_excess` (n,) is log(C/C') without what
    laws of granularity add to it; all excess is over the `reference`.
    """

    train: Array
    serve: Array
    balance: Array
    most: float
    within: float
    attainable: bool
    decides: bool
    frontier: Array
    knee: int
    ensemble_excess: Array
    reference: Reference

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
    finite = _not_far_behind(finite, excess, cost)
    order = finite[np.lexsort((excess[finite], cost[finite]))]
    least = np.minimum.accumulate(excess[order])
    first = np.concatenate([[True], excess[order][1:] < least[:-1]])
    return np.asarray(order[first])


def _not_far_behind(index: Array, excess: Array, cost: Array) -> Array:
    """The positions without those that a design of a cheaper bin of cost matches in excess."""
    if len(index) <= BINS:
        return index
    logs = np.log(np.maximum(cost[index], 1e-300))
    span = max(float(np.ptp(logs)), 1e-12)
    which = np.minimum((logs - logs.min()) / span * BINS, BINS - 1).astype(np.int64)
    least = np.full(BINS, np.inf)
    np.minimum.at(least, which, excess[index])
    cheaper = np.concatenate([[np.inf], np.minimum.accumulate(least)[:-1]])
    return np.asarray(index[excess[index] < cheaper[which]])
