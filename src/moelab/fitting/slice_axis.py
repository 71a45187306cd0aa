"""The axis on which a slice's curves are fitted, and the places that it has."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.laws.law import COUNTS, RATES, SHARES

Array = NDArray[Any]
FROM_ONE = (*COUNTS, "top_k", "active_experts")
"""Axes without a place below one: a dense model's."""


@dataclass(frozen=True)
class Axis:
    """Between x and the axis on which curves are fitted: its logarithm, that of 1 / (1 - x), or x itself.

    `least` and `most` are the values that the axis can have."""

    kind: str
    least: float = -np.inf
    most: float = np.inf

    @classmethod
    def of(cls, name: str, x: Array) -> "Axis":
        if name in SHARES and np.all((x >= 0) & (x < 1)):
            return cls("share", 0.0)
        least = 1.0 if name in FROM_ONE and x.min() >= 1 else -np.inf
        most = 1.0 if name in RATES and x.max() <= 1 else np.inf
        return cls("log" if np.all(x > 0) else "x", least, most)

    def to(self, x: Array) -> Array:
        return -np.log(1 - x) if self.kind == "share" else np.log(x) if self.kind == "log" else x

    def back(self, u: float) -> float:
        """The place itself, cut at the values that the axis can have."""
        x = -np.expm1(-u) if self.kind == "share" else np.exp(u) if self.kind == "log" else u
        return float(np.clip(x, self.least, self.most))
