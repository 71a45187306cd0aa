"""Rates of matrix products that were measured on a device, by rows: what few rows cost beside many.

A product of m rows reads its weights (and packs them, where the kernel does) and computes; how far these overlap, and
what whole tiles waste, differ between kernels. A measured curve holds all of it. Routed experts are many products of
few rows each: m is the mean number of rows of an expert that the step touches.
"""

from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from moelab.config import Config, Count, CountOrZero, Positive

Array = NDArray[Any]
Rates = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=64)]


class ProductRates(Config):
    """FLOPs per second of one precision's products, by `rows`, in ascending order.

    `dense` are of large matrices that all rows multiply, `experts` of a layer's routed experts, each with its own rows.
    Where a step of at most `few` tokens runs experts by another kernel, `few_experts` are of that one.
    """

    rows: Annotated[tuple[Count, ...], Field(min_length=2, max_length=64)]
    dense: Rates
    experts: Rates
    few: CountOrZero = 0
    few_experts: Rates | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(after <= before for before, after in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError("rows: must ascend")
        if (self.few > 0) != (self.few_experts is not None):
            raise ValueError("few_experts: goes with few; give both or neither")
        for name in ("dense", "experts", "few_experts"):
            if (rates := getattr(self, name)) is not None and len(rates) != len(self.rows):
                raise ValueError(f"{name}: needs one rate for each of the {len(self.rows)} rows")
        return self

    def dense_at(self, rows: Array) -> Array:
        """FLOPs per second of dense matrices at so many rows (n,)."""
        return self._at(rows, self.dense)

    def experts_at(self, tokens: Array, each: Array) -> Array:
        """FLOPs per second of routed experts in a step of `tokens` tokens, `each` rows for a touched expert (n,)."""
        many = self._at(each, self.experts)
        if self.few_experts is None:
            return many
        return np.where(tokens <= self.few, self._at(each, self.few_experts), many)

    def _at(self, rows: Array, rates: tuple[float, ...]) -> Array:
        """Rates between measured rows: the seconds of a product are linear in its rows from one to the next. Beyond
        the last the rate is the last; below the first the seconds are those of the first."""
        known = np.array(self.rows, float)
        seconds = np.interp(rows, known, known / np.array(rates))
        return np.where(rows > known[-1], rates[-1], rows / np.maximum(seconds, 1e-300))
