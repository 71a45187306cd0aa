"""What serving costs: devices, the largest batch within memory and latency limits, throughput, price. Vectorised.

Requests arrive steadily and are of all ages, so a step of batch b decodes b tokens and reads b / output new prompts
(arXiv 2404.02852): step time = decode(b) + b / output x prompt time, throughput = b / step time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.notebook import Shown, html_table, short_repr
from moelab.serving.batch import largest_batch, least_gpus, memory_of
from moelab.serving.hardware import Hardware
from moelab.serving.refusal import why_not
from moelab.serving.roofline import Layout, Load, distinct_experts, load_of
from moelab.serving.traffic import Traffic

Array = NDArray[Any]
CHUNK = 16384
"""Shapes evaluated together: what fits into a core's cache."""

CHEAP = 4
"""Devices, over the fewest that hold the model, up to which every layout is tried for its price; beyond, only where the
limits are not met yet."""


@dataclass(frozen=True, slots=True, repr=False)
class ServingCost(Shown):
    """The cheapest way found, for n shapes; NaN (0 devices) where none meets the limits.

    `tokens_per_second` counts output tokens of the whole group; prices are US dollars, `cost_per_million_tokens` counts
    both prompt and output tokens, as `--serve-tokens` does. `memory_bytes` is the group's, weights and KV cache.
    """

    gpus: Array
    expert_parallel: Array
    batch: Array
    tokens_per_second: Array
    time_to_first_token: Array
    time_per_output_token: Array
    cost_per_million_tokens: Array
    cost_per_million_output_tokens: Array
    memory_bytes: Array
    distinct_experts: Array

    def take(self, index: Any) -> "ServingCost":
        """The shapes `index`."""
        return ServingCost(*(np.atleast_1d(getattr(self, field.name)[index]) for field in fields(self)))

    @classmethod
    def join(cls, parts: "Sequence[ServingCost]") -> "ServingCost":
        """Several groups of shapes, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def feasible(self) -> Array:
        """Where the limits can be met."""
        return self.gpus > 0

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
        parallel = value.pop("expert_parallel")
        return value | {
            "gpus": int(value["gpus"]),
            "batch": int(value["batch"]),
            "parallel": "one device" if value["gpus"] == 1 else "expert" if parallel else "tensor",
        }


def serve(
    model: ModelConfig | Shape, traffic: Traffic, hardware: Hardware, gpu_price: float | None = None
) -> ServingCost:
    """The cheapest layout and batch for each shape (n,). `gpu_price` replaces the catalogue's dollars per hour."""
    shape = Shape.of(model) if isinstance(model, ModelConfig) else model
    price = hardware.price if gpu_price is None else gpu_price
    sizes = [np.size(getattr(shape, name)) for name in Shape.__dataclass_fields__]
    n = max(sizes)
    parts = [
        _serve(load_of(_part(shape, start), traffic, hardware), traffic, hardware, price)
        for start in range(0, n, CHUNK)
    ]
    return ServingCost.join(parts)


def _part(shape: Shape, start: int) -> Shape:
    return shape.take(slice(start, start + CHUNK))


def serve_one(
    model: ModelConfig, traffic: Traffic, hardware: Hardware, gpu_price: float | None = None
) -> dict[str, Any]:
    """`serve` for one model. Raises InputError naming the limit that cannot be met and the nearest value."""
    cost = serve(model, traffic, hardware, gpu_price)
    result = cost.to_dict()
    if result is None:
        raise InputError(why_not(model, traffic, hardware))
    return result


def doubts(model: ModelConfig, cost: dict[str, Any]) -> list[str]:
    """What to beware of in the answer of `serve_one` for this model."""
    heads = 1 if model.mla is not None else model.n_kv_heads
    if cost["parallel"] != "tensor" or cost["gpus"] <= heads:
        return []
    what = "one latent KV cache" if model.mla is not None else f"{heads} KV head{'s' * (heads > 1)}"
    return [
        f"tensor parallel over {cost['gpus']:,} devices but {what}: those beyond {heads} hold copies of the cache, and "
        "kernels lose efficiency on such thin slices, which this estimate leaves out"
    ]


def _serve(load: Load, traffic: Traffic, hardware: Hardware, price: float) -> ServingCost:
    """The cheapest of the layouts for one chunk."""
    best = _nothing(len(load.read_kv))
    if traffic.gpus is not None:
        layouts = [Layout(traffic.gpus)] + ([Layout(traffic.gpus, True)] if traffic.gpus > 1 else [])
        everywhere = np.arange(len(load.read_kv))
        for layout in layouts:
            _improve(best, load, layout, traffic, hardware, price, everywhere)
        return best
    least = least_gpus(load, hardware)
    for factor in (2**k for k in range(traffic.max_gpus.bit_length())):
        gpus = least * factor
        unmet = ~best.feasible if factor > CHEAP else np.ones(len(gpus), bool)
        for g in np.unique(gpus[unmet & (gpus <= traffic.max_gpus)]):
            where = np.flatnonzero(unmet & (gpus == g))
            some = load.take(where)
            for parallel in (False, True) if g > 1 else (False,):
                _improve(best, some, Layout(int(g), parallel), traffic, hardware, price, where)
    return best


def _nothing(n: int) -> ServingCost:
    columns = [np.zeros(n, np.int64), np.zeros(n, bool), *(np.full(n, np.nan) for _ in range(8))]
    return ServingCost(*columns)


def _improve(
    best: ServingCost, load: Load, layout: Layout, traffic: Traffic, hardware: Hardware, price: float, where: Array
) -> None:
    """Write this layout's result over `best` at `where`, wherever it is cheaper."""
    batch, step, first = largest_batch(load, layout, traffic, hardware)
    with np.errstate(divide="ignore", invalid="ignore"):
        speed = batch / step
        dollars = layout.gpus * price / 3600 / speed * 1e6
        # Without a price, devices are still scarce: compare by device-seconds per token.
        worth = layout.gpus / speed
    fine = batch >= 1
    current = best.gpus[where] / best.tokens_per_second[where]
    better = fine & ~(worth >= current)
    index = where[better]
    share = traffic.output / (traffic.prompt + traffic.output)
    moe = load.n_experts[better] > 0
    for name, value in (
        ("gpus", np.full(len(index), layout.gpus)),
        ("expert_parallel", np.full(len(index), layout.expert_parallel)),
        ("batch", batch[better]),
        ("tokens_per_second", speed[better]),
        ("time_to_first_token", (first + step)[better]),
        ("time_per_output_token", step[better]),
        ("cost_per_million_tokens", dollars[better] * share),
        ("cost_per_million_output_tokens", dollars[better]),
        ("memory_bytes", layout.gpus * memory_of(load, layout, batch)[better]),
        ("distinct_experts", np.where(moe, distinct_experts(load.n_experts, load.top_k, batch)[better], 0.0)),
    ):
        getattr(best, name)[index] = value
