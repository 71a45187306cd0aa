"""How a model is laid out over devices, and the largest batch that memory and the limits on latency allow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.hardware import Hardware
from moelab.serving.roofline import Layout, Load, Step, prompt_time, step_of
from moelab.serving.traffic import Traffic

Array = NDArray[Any]
BISECTIONS, FALSE_POSITIONS = 4, 3
"""Steps towards the largest batch within a limit, on a logarithmic scale and then along the chord: within 1 % of it."""


def layouts_of(traffic: Traffic) -> list[Layout]:
    """Every layout that `serve` may choose."""
    counts = [traffic.gpus] if traffic.gpus else [2**k for k in range(traffic.max_gpus.bit_length())]
    return [layout for g in counts for layout in ways(g, traffic)]


def ways(gpus: int, traffic: Traffic) -> list[Layout]:
    """The layouts over so many devices."""
    if gpus == 1:
        return [Layout(1)]
    return [Layout(gpus, way == "expert") for way in ("tensor", "expert") if traffic.parallel in (None, way)]


def least_gpus(load: Load, hardware: Hardware) -> Array:
    """The smallest power of two whose memory holds the weights and one request (n,)."""
    room, share = hardware.capacity
    need = (load.weight_bytes * share + load.kv_bytes) / room
    return np.exp2(np.ceil(np.log2(np.maximum(need, 1.0)))).astype(np.int64)


def memory_of(load: Load, layout: Layout, batch: Array) -> Array:
    """Bytes of weights and of the KV cache of `batch` requests, on one device (n,)."""
    return layout.weights(load) + batch * load.kv_bytes * layout.kv_share(load)


def largest_batch(load: Load, layout: Layout, traffic: Traffic, hardware: Hardware) -> tuple[Array, Array, Array]:
    """The largest batch within memory, `tpot` and `ttft` (0: none), seconds per output token and of one prompt (n,)."""
    steps = step_of(load, layout, hardware, traffic, mixed=not traffic.disaggregated)
    first = prompt_time(load, layout, hardware, traffic, steps)
    memory, share = hardware.capacity
    room = memory - share * layout.weights(load)
    cap = traffic.batch or traffic.most(hardware.calibrated(traffic.engine)) * layout.gpus
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
        batch[late] = _shrink(some, batch[late], step[late], limit[late])
        step[late] = some.seconds(batch[late])
    return np.where((most >= 1) & (step <= limit), batch, 0.0), step, first


def _shrink(steps: Step, most: Array, at_most: Array, limit: Array) -> Array:
    """The largest whole batch between 1 and `most` found within the limit: bisection, then false position.

    `at_most` is the seconds at `most`.
    """
    low, high = np.ones_like(most), most
    at_low, at_high = steps.seconds(low), at_most
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
