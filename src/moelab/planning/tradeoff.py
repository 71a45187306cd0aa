"""Loss traded against cost: the frontier of two columns, and what a balance of them holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.reference import Reference

Array = NDArray[Any]


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
    order = finite[np.lexsort((excess[finite], cost[finite]))]
    least = np.minimum.accumulate(excess[order])
    first = np.concatenate([[True], excess[order][1:] < least[:-1]])
    return np.asarray(order[first])
