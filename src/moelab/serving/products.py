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


class ExpertRates(Config):
    """FLOPs per second of routed experts of `width` by `width`, by the rows of ProductRates."""

    width: Count
    experts: Rates
    few_experts: Rates | None = None


class ProductRates(Config):
    """FLOPs per second of one precision's products, by `rows`, in ascending order.

    `dense` are of large matrices that all rows multiply, `experts` of a layer's routed experts, each with its own rows.
    Where a step of at most `few` tokens runs experts by another kernel, `few_experts` are of that one. Experts of
    `expert_width` by that width were measured; `other_widths` are further ones, between which rates are interpolated.
    """

    rows: Annotated[tuple[Count, ...], Field(min_length=2, max_length=64)]
    dense: Rates
    experts: Rates
    few: CountOrZero = 0
    few_experts: Rates | None = None
    expert_width: Count | None = None
    other_widths: tuple[ExpertRates, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(after <= before for before, after in zip(self.rows, self.rows[1:], strict=False)):
            raise ValueError("rows: must ascend")
        if (self.few > 0) != (self.few_experts is not None):
            raise ValueError("few_experts: goes with few; give both or neither")
        for each in (self, *self.other_widths):
            for name in ("dense", "experts", "few_experts"):
                if (rates := getattr(each, name, None)) is not None and len(rates) != len(self.rows):
                    raise ValueError(f"{name}: needs one rate for each of the {len(self.rows)} rows")
        if self.other_widths:
            widths = [self.expert_width, *(other.width for other in self.other_widths)]
            if None in widths or len(set(widths)) < len(widths):
                raise ValueError("other_widths: needs expert_width, and each width once")
            if any((other.few_experts is None) != (self.few_experts is None) for other in self.other_widths):
                raise ValueError("other_widths: few_experts goes with few; give it for every width or for none")
        return self

    def dense_at(self, rows: Array) -> Array:
        """FLOPs per second of dense matrices at so many rows (n,)."""
        return self._at(rows, self.dense)

    def experts_at(self, tokens: Array, each: Array, width: Array) -> Array:
        """FLOPs per second of routed experts in a step of `tokens` tokens, `each` rows for a touched expert (n,).

        `width` is the square root of an expert's two sizes (n,). Between measured widths the logarithm of the rate is
        linear in that of the width; beyond the ends it is the nearest one's.
        """
        one = self._experts_at(tokens, each, self.experts, self.few_experts)
        if not self.other_widths:
            return one
        known = [(float(self.expert_width or 1), one)] + [
            (float(other.width), self._experts_at(tokens, each, other.experts, other.few_experts))
            for other in self.other_widths
        ]
        known.sort(key=lambda pair: pair[0])
        place = np.interp(np.log(width), np.log([at for at, _ in known]), np.arange(len(known)))
        weights = np.maximum(1 - np.abs(place - np.arange(len(known))[:, None]), 0.0)
        return np.asarray(np.exp((weights * np.log([rates for _, rates in known])).sum(0)))

    def _experts_at(self, tokens: Array, each: Array, rates: tuple[float, ...], few: tuple[float, ...] | None) -> Array:
        many = self._at(each, rates)
        return many if few is None else np.where(tokens <= self.few, self._at(each, few), many)

    def _at(self, rows: Array, rates: tuple[float, ...]) -> Array:
        """Rates between measured rows: the seconds of a product are linear in its rows from one to the next. Beyond
        the last the rate is the last; below the first the seconds are those of the first."""
        known = np.array(self.rows, float)
        seconds = np.interp(rows, known, known / np.array(rates))
        return np.where(rows > known[-1], rates[-1], rows / np.maximum(seconds, 1e-300))
