"""Medians over the members that cover a design, and which designs are comparable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MISSING_MEMBER = 1e6
"""Added to a design's score for every member that covers others of its kind but not it: above any log(C/C')."""

PART = 16_384
"""Columns of which the median is taken together."""


@dataclass(frozen=True)
class Coverage:
    """How many members must cover a design: more than half, or the most that cover any where that is fewer.

    Medians over different members are not comparable. Hence designs that as many members cover as any design of their
    kind come first.
    """

    needed: int
    dense: int
    moe: int

    @classmethod
    def of(cls, excess: Array, is_moe: Array) -> "Coverage":
        """From log(C/C') by every member (members, n), NaN where a member does not apply."""
        covering = np.isfinite(excess).sum(axis=0)
        dense, moe = (int(covering[kind].max(initial=0)) for kind in (~is_moe, is_moe))
        return cls(min(len(excess) // 2 + 1, max(dense, moe, 1)), dense, moe)

    def most(self, is_moe: Array) -> Array:
        """The most members that cover any design of each design's kind (n,)."""
        return np.where(is_moe, self.moe, self.dense)

    def score(self, excess: Array, is_moe: Array) -> Array:
        """The median (n,), plus `MISSING_MEMBER` for every member that is missing; infinite where too few apply."""
        covering = np.isfinite(excess).sum(axis=0)
        missing = np.maximum(self.most(is_moe) - covering, 0)
        return np.where(covering >= self.needed, median_of(excess) + MISSING_MEMBER * missing, np.inf)


def median_of(values: Array) -> Array:
    """Median over axis 0, ignoring NaN; infinite where all are NaN. A part of the columns at a time, which stays in a
    core's cache."""
    if values.ndim != 2 or values.shape[1] <= PART:
        return _median(values)
    return np.concatenate([_median(values[:, start : start + PART]) for start in range(0, values.shape[1], PART)])


def _median(values: Array) -> Array:
    """The median; the few rows are sorted by exchanges."""
    count = np.isfinite(values).sum(axis=0)
    ordered = np.where(np.isnan(values), np.inf, values)
    for end in range(len(ordered) - 1, 0, -1):
        for row in range(end):
            lower = np.minimum(ordered[row], ordered[row + 1])
            np.maximum(ordered[row], ordered[row + 1], out=ordered[row + 1])
            ordered[row] = lower
    low, high = ordered[0], ordered[0]
    for row in range(1, len(ordered)):
        low = np.where(count > 2 * row, ordered[row], low)
        high = np.where(count >= 2 * row, ordered[row], high)
    return np.where(count == 0, np.inf, (low + high) / 2)
