"""The cheapest way to serve each of n shapes, as columns: devices, batch, throughput, latencies, prices, intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.notebook import Shown, html_table, short_repr

Array = NDArray[Any]

INTERVALS = (
    "tokens_per_second",
    "time_to_first_token",
    "time_per_output_token",
    "cost_per_million_tokens",
    "cost_per_million_output_tokens",
)
"""What has an interval: everything that follows from a time."""


@dataclass(frozen=True, slots=True, repr=False)
class ServingCost(Shown):
    """The cheapest way found, for n shapes; NaN (0 devices) where none meets the limits.

    `tokens_per_second` counts output tokens of the whole group; prices are US dollars, `cost_per_million_tokens` counts
    both prompt and output tokens, as `--serve-tokens` does; NaN without a price. `memory_bytes` is the group's, weights
    and KV cache. `overlapped`: exchanges run beside computing, in two half batches. `prefill_gpus` are devices beside
    the group that read prompts for it. The 80 % interval of a time, a throughput or a price is its value over and times
    `interval_factor`; NaN where no rows support one.
    """

    gpus: Array
    expert_parallel: Array
    overlapped: Array
    batch: Array
    tokens_per_second: Array
    time_to_first_token: Array
    time_per_output_token: Array
    cost_per_million_tokens: Array
    cost_per_million_output_tokens: Array
    memory_bytes: Array
    distinct_experts: Array
    prefill_gpus: Array
    interval_factor: Array

    @classmethod
    def none(cls, n: int) -> "ServingCost":
        """Of n shapes, for which no way is known."""
        return cls(
            np.zeros(n, np.int64), np.zeros(n, bool), np.zeros(n, bool), *(np.full(n, np.nan) for _ in range(10))
        )

    def take(self, index: Any) -> "ServingCost":
        """The shapes `index`."""
        return ServingCost(*(np.atleast_1d(getattr(self, field.name)[index]) for field in fields(self)))

    def view(self, part: slice) -> "ServingCost":
        """The shapes of a slice; what is written there is written here."""
        return ServingCost(*(getattr(self, field.name)[part] for field in fields(self)))

    @classmethod
    def join(cls, parts: "Sequence[ServingCost]") -> "ServingCost":
        """Several groups of shapes, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def feasible(self) -> Array:
        """Where the limits can be met."""
        return self.gpus > 0

    def low(self, name: str) -> Array:
        """The lower end of the 80 % interval of a time, a throughput or a price (n,)."""
        return np.asarray(getattr(self, name) / self.interval_factor)

    def high(self, name: str) -> Array:
        """The upper end."""
        return np.asarray(getattr(self, name) * self.interval_factor)

    def __repr__(self) -> str:
        return short_repr(self, models=len(self.gpus), feasible=int(self.feasible.sum()), **self._shown(3))

    def _repr_html_(self) -> str:
        columns = self._shown(20)
        more = f"{len(self.gpus):,} models; the first 20 are shown" if len(self.gpus) > 20 else ""
        return html_table(list(columns), list(zip(*columns.values(), strict=True)), note=more)

    def _shown(self, most: int) -> dict[str, list[Any]]:
        names = ("gpus", "batch", "tokens_per_second", "time_per_output_token", "cost_per_million_tokens")
        return {name: [float(f"{value:.4g}") for value in getattr(self, name)[:most].tolist()] for name in names}

    def to_dict(self, index: int = 0) -> dict[str, Any] | None:
        """One shape in the JSON contract of `moelab serving --json`; None where nothing meets the limits."""
        if not self.feasible[index]:
            return None
        value: dict[str, Any] = {field.name: float(getattr(self, field.name)[index]) for field in fields(self)}
        parallel, factor = value.pop("expert_parallel"), value.pop("interval_factor")
        for name in INTERVALS:
            known = math.isfinite(factor) and math.isfinite(value[name])
            value[f"{name}_low"] = value[name] / factor if known else None
            value[f"{name}_high"] = value[name] * factor if known else None
        value = {name: number if number is None or math.isfinite(number) else None for name, number in value.items()}
        return value | {
            "gpus": int(value["gpus"]),
            "batch": int(value["batch"]),
            "overlapped": bool(value["overlapped"]),
            "parallel": "one device" if value["gpus"] == 1 else "expert" if parallel else "tensor",
        }
