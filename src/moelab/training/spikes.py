"""Loss spikes: a step whose loss stands far above those just before it."""

import math
from collections.abc import Sequence

_DEVIATIONS = 7.0
_LEAST = 0.1
_WINDOW = 20


def is_spike(loss: float, before: Sequence[float]) -> bool:
    """Whether the loss is no number, or above the mean of the (20 or more) losses before it by seven standard
    deviations (the measure of OLMo 2, arXiv 2501.00656) and by 0.1 nats."""
    if not math.isfinite(loss):
        return True
    if len(before) < _WINDOW:
        return False
    mean = sum(before) / len(before)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in before) / (len(before) - 1))
    return loss > mean + max(_DEVIATIONS * deviation, _LEAST)
