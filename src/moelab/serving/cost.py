"""What serving costs: devices, the largest batch within memory and latency limits, throughput, price. Vectorised.

Requests arrive steadily and are of all ages, so a step of batch b decodes b tokens and reads b / output new prompts
(arXiv 2404.02852): step time = decode(b) + b / output x prompt time, throughput = b / step time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.quantities import format_bytes, format_seconds, parse_seconds
from moelab.serving.hardware import Hardware
from moelab.serving.roofline import Layout, Load, Step, distinct_experts, load_of, prompt_time, step_of
from moelab.serving.traffic import Traffic

Array = NDArray[Any]
CHUNK = 16384
"""Shapes evaluated together: what fits into a core's cache."""

BISECTIONS, FALSE_POSITIONS = 4, 3
"""Steps towards the largest batch within a limit, on a logarithmic scale and then along the chord: within 1 % of it."""


CHEAP = 4
"""Devices, over the fewest that hold the model, up to which every layout is tried for its price; beyond, only where the
limits are not met yet."""


@dataclass(frozen=True, slots=True)
class ServingCost:
    """The cheapest way found, for n shapes; NaN (0 devices) where none meets the limits.

    `tokens_per_second` counts output tokens of the whole group; prices are US dollars, `cost_per_million_tokens` counts
    prompt and output tokens alike, as `--serve-tokens` does. `memory_bytes` is the group's, weights and KV cache.
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
        raise InputError(_why_not(model, traffic, hardware))
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
    least = _least_gpus(load, hardware)
    for factor in (2**k for k in range(traffic.max_gpus.bit_length())):
        gpus = least * factor
        unmet = ~best.feasible if factor > CHEAP else np.ones(len(gpus), bool)
        for g in np.unique(gpus[unmet & (gpus <= traffic.max_gpus)]):
            where = np.flatnonzero(unmet & (gpus == g))
            some = load.take(where)
            for parallel in (False, True) if g > 1 else (False,):
                _improve(best, some, Layout(int(g), parallel), traffic, hardware, price, where)
    return best


def _least_gpus(load: Load, hardware: Hardware) -> Array:
    """The smallest power of two whose memory holds the weights and one request (n,)."""
    room = hardware.memory * hardware.usable_memory
    need = (load.weight_bytes + load.kv_bytes) / room
    return np.exp2(np.ceil(np.log2(np.maximum(need, 1.0)))).astype(np.int64)


def _nothing(n: int) -> ServingCost:
    columns = [np.zeros(n, np.int64), np.zeros(n, bool), *(np.full(n, np.nan) for _ in range(8))]
    return ServingCost(*columns)


def _improve(
    best: ServingCost, load: Load, layout: Layout, traffic: Traffic, hardware: Hardware, price: float, where: Array
) -> None:
    """Write this layout's result over `best` at `where`, wherever it is cheaper."""
    batch, step, first = _largest_batch(load, layout, traffic, hardware)
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
        ("memory_bytes", layout.gpus * _memory(load, layout, batch)[better]),
        ("distinct_experts", np.where(moe, distinct_experts(load.n_experts, load.top_k, batch)[better], 0.0)),
    ):
        getattr(best, name)[index] = value


def _memory(load: Load, layout: Layout, batch: Array) -> Array:
    return layout.weights(load) + batch * load.kv_bytes * layout.kv_share(load)


def _largest_batch(load: Load, layout: Layout, traffic: Traffic, hardware: Hardware) -> tuple[Array, Array, Array]:
    """The largest batch within memory, `tpot` and `ttft`, its step time and the time of one prompt (n,); 0: none."""
    prompt = prompt_time(load, layout, hardware, traffic, alone=False)
    first = prompt_time(load, layout, hardware, traffic, alone=True) if layout.expert_parallel else prompt
    steps = step_of(load, layout, hardware, traffic.imbalance, prompt / traffic.output)
    room = hardware.memory * hardware.usable_memory - layout.weights(load)
    cap = traffic.batch or traffic.max_batch * layout.gpus
    most = np.minimum(np.floor(room / (load.kv_bytes * layout.kv_share(load))), cap)
    most = np.where(layout.fits(load) & (most >= (traffic.batch or 1)), most, 0.0)
    batch = np.maximum(most, 1.0)
    step = steps.seconds(batch)
    limit = np.full_like(step, np.inf if traffic.tpot is None else traffic.tpot)
    if traffic.ttft is not None:
        limit = np.minimum(limit, traffic.ttft - first)
    late = np.flatnonzero((step > limit) & (most >= 1))
    if len(late) and traffic.batch is None:
        some = steps.take(late)
        batch[late] = _shrink(some, batch[late], limit[late])
        step[late] = some.seconds(batch[late])
    return np.where((most >= 1) & (step <= limit), batch, 0.0), step, first


def _shrink(steps: Step, most: Array, limit: Array) -> Array:
    """The largest whole batch between 1 and `most` found within the limit: bisection, then false position."""
    low, high = np.ones_like(most), most
    at_low, at_high = steps.seconds(low), steps.seconds(high)
    for attempt in range(BISECTIONS + FALSE_POSITIONS):
        if attempt < BISECTIONS:
            middle = np.sqrt(low * high)
        else:
            part = (limit - at_low) / np.maximum(at_high - at_low, 1e-30)
            middle = low + (high - low) * np.clip(part, 0.02, 0.98)
        seconds = steps.seconds(middle)
        ok = seconds <= limit
        low, at_low = np.where(ok, middle, low), np.where(ok, seconds, at_low)
        high, at_high = np.where(ok, high, middle), np.where(ok, at_high, seconds)
    return np.asarray(np.maximum(np.floor(low + 1e-9), 1.0))


def _why_not(model: ModelConfig, traffic: Traffic, hardware: Hardware) -> str:
    """Which limit cannot be met, and its nearest feasible value: memory, latencies, or the batch within them."""
    load = load_of(Shape.of(model), traffic, hardware)
    free = traffic.model_copy(update={"tpot": None, "ttft": None, "batch": 1})
    fitting = [layout for layout in _layouts(traffic) if _largest_batch(load, layout, free, hardware)[0][0] >= 1]
    if not fitting:
        need = int(_least_gpus(load, hardware)[0])
        have = traffic.gpus or traffic.max_gpus
        return (
            f"gpus: {have} x {hardware.name} ({format_bytes(hardware.memory)} each) cannot hold weights and a request "
            f"({format_bytes(float(load.weight_bytes[0] + load.kv_bytes[0]))}); the nearest feasible value is {need}"
        )
    late = _too_late(load, fitting, traffic, hardware, free)
    if late:
        return "; ".join(late)
    most = traffic.model_copy(update={"batch": None, "max_batch": UNLIMITED})
    largest = max(int(_largest_batch(load, layout, most, hardware)[0][0]) for layout in fitting)
    limits = [name for name in ("tpot", "ttft") if getattr(traffic, name) is not None]
    return (
        f"batch: {traffic.batch:,} does not fit {_and(['memory', *limits])}; the nearest feasible value is {largest:,}"
    )


UNLIMITED = 10**12
"""More requests a device than any memory holds."""


def _layouts(traffic: Traffic) -> list[Layout]:
    """Every layout that `serve` may choose."""
    counts = [traffic.gpus] if traffic.gpus else [2**k for k in range(traffic.max_gpus.bit_length())]
    return [Layout(g, parallel) for g in counts for parallel in ((False, True) if g > 1 else (False,))]


def _too_late(load: Load, layouts: Sequence[Layout], traffic: Traffic, hardware: Hardware, free: Traffic) -> list[str]:
    """The limits on latency that not even batch 1 meets, each with its nearest value; together they are feasible."""
    steps = [_largest_batch(load, layout, free, hardware) for layout in layouts]
    times = [(float(step[0]), float((first + step)[0])) for _, step, first in steps]
    lines = []
    ttft = np.inf if traffic.ttft is None else traffic.ttft
    fastest = min(total for _, total in times)
    if ttft < fastest:
        lines.append(_unmet("ttft", ttft, fastest))
        ttft = parse_seconds(_rounded_up(fastest))
    within = min(step for step, total in times if total <= ttft)
    if traffic.tpot is not None and traffic.tpot < within:
        lines.insert(0, _unmet("tpot", traffic.tpot, within))
    return lines


def _unmet(name: str, limit: float, nearest: float) -> str:
    shown = _rounded_up(nearest)
    return f"{name}: {format_seconds(limit)} cannot be met; the nearest feasible value is {shown}"


def _rounded_up(seconds: float) -> str:
    """A time in three digits, not below the given one, as `--tpot` reads it."""
    scale, unit = (1e3, "ms") if seconds < 1 else (1.0, "s")
    digits = 2 - math.floor(math.log10(seconds * scale))
    value = math.ceil(seconds * scale * 10**digits * (1 + 1e-9)) / 10**digits
    return f"{np.format_float_positional(value, trim='-')} {unit}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} together"
