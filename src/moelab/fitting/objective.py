"""What a fit minimises: a sum over runs of a penalty on r = log(measured) - log(predicted)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.quantities import parse_number

Array = NDArray[Any]


@dataclass(frozen=True)
class Objective:
    """`huber`: r^2/2 up to `delta`, then linear. `squared`: r^2/2. `floor`: Huber, with runs that lie above the law
    (r > 0) counted `above` times, so the law follows the best runs and badly tuned ones pull little."""

    kind: Literal["huber", "squared", "floor"] = "huber"
    delta: float = 1e-3
    above: float = 1.0

    @classmethod
    def parse(cls, text: "str | Objective") -> "Objective":
        """`huber:1e-3`, `squared`, `floor:1e-3:0.1` (delta, then the weight of runs above the law)."""
        if isinstance(text, Objective):
            return text
        kind, *numbers = str(text).split(":")
        most = {"huber": 1, "squared": 0, "floor": 2}
        if kind not in most or len(numbers) > most[kind]:
            raise InputError(f"objective: expected huber[:DELTA], squared or floor[:DELTA[:WEIGHT]], got {text!r}")
        values = [parse_number(number, "objective") for number in numbers]
        if any(value <= 0 for value in values):
            raise InputError(f"objective: its numbers must be positive, got {text!r}")
        if kind == "squared":
            return cls("squared", np.inf)
        delta = values[0] if values else 1e-3
        return cls("floor", delta, values[1] if len(values) > 1 else 0.1) if kind == "floor" else cls("huber", delta)

    def __str__(self) -> str:
        tail = {"huber": f":{self.delta:g}", "squared": "", "floor": f":{self.delta:g}:{self.above:g}"}
        return self.kind + tail[self.kind]

    def penalty(self, r: Array) -> Array:
        """The penalty itself."""
        size = np.abs(r)
        value = np.where(size <= self.delta, 0.5 * r * r, self._slope * (size - 0.5 * self._slope))
        return self._weigh(r, value)

    def slope(self, r: Array) -> Array:
        """Its first derivative."""
        return self._weigh(r, np.clip(r, -self.delta, self.delta))

    def curvature(self, r: Array) -> Array:
        """Its second derivative: 1 or 0, times the side's weight."""
        return self._weigh(r, (np.abs(r) <= self.delta).astype(float))

    def majorizer(self, r: Array) -> Array:
        """slope / r: the curvature of the parabola that touches the penalty at r and lies above it."""
        size = np.abs(r)
        return self._weigh(r, np.where(size <= self.delta, 1.0, self._slope / np.maximum(size, 1e-300)))

    @property
    def _slope(self) -> float:
        return self.delta if np.isfinite(self.delta) else 0.0

    def _weigh(self, r: Array, value: Array) -> Array:
        return value if self.above == 1.0 else np.where(r > 0, self.above * value, value)
