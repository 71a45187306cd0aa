"""How far predicted costs of two designs must differ before the difference is known: the paired error.

What is wrong in a calibration's coefficients moves both designs together and cancels in their ratio. What is wrong for
one model alone does not: its standard deviation counts twice.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.budget import Budget
from moelab.planning.utilisation import PREDICTED
from moelab.serving.training_calibration import INTERVAL, NORMAL, training_calibration

Array = NDArray[Any]


@dataclass(frozen=True)
class PairedErrors:
    """Half-width of the 80 % interval of the log ratio of two designs' training times."""

    training: float = 0.0

    @classmethod
    def of(cls, budget: Budget) -> "PairedErrors":
        """From the calibrations that a budget's devices use. A stated MFU and stated shares of peak count as exact."""
        training = 0.0
        if budget.mfu == PREDICTED and budget.training_device is not None:
            calibration = training_calibration()
            training = INTERVAL.get(len(calibration.models), NORMAL) * math.sqrt(2) * calibration.residual
        return cls(training)


EXACT = PairedErrors()
"""Costs that count as exact."""


def unknown_share(slower: Any, half_width: float) -> Array:
    """The part of each design's log time above the fastest's (n,) that lies within the paired error: a tie."""
    return np.asarray(np.minimum(slower, half_width))


def known_excess(log_cost: Any, half_width: float) -> Array:
    """What is known of each design's log cost above the least (n,): the part beyond the paired error."""
    log_cost = np.asarray(log_cost, float)
    return np.asarray(np.maximum(log_cost - log_cost.min() - half_width, 0.0))
