"""How a model is laid out over devices, and the largest batch that memory and the limits on latency allow."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.floor import Floor
from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout
from moelab.serving.loaded_step import step_of
from moelab.serving.prompts import prompt_time
from moelab.serving.step import Step
from moelab.serving.traffic import Traffic
from moelab.serving.work import Load

Array = NDArray[Any]
FALSE_POSITIONS = 4
"""Steps towards the largest batch within a limit. Compared with exact batches of 487,000 searches under four limits:
0.04 % below in the mean, 0.6 % for one in a hundred, 11 % (of a few requests) at most."""

MANY = 0.6
"""Share of the shapes from which all are computed, since copies of some take time."""

FEW = 100
"""Requests below which one more is tried in the end, since it is a percent and more."""

HALVINGS = 3
"""Further bisections where the batch that the chord gives is above the limit."""

CAREFUL = 0.997
"""Of the last chord's crossing: the batch that is tried, since the seconds of a batch may lie above the chord."""


def layouts_of(traffic: Traffic, hardware: Hardware) -> list[Layout]:
    """Every layout that `serve` may choose."""
    counts = [traffic.gpus] if traffic.gpus else [2**k for k in range(traffic.max_gpus.bit_length())]
    return [layout for g in counts for layout in ways(g, traffic, hardware)]


def ways(gpus: int, traffic: Traffic, hardware: Hardware) -> list[Layout]:
    """The layouts over so many devices, those first that mostly are the cheapest of large groups."""
    if gpus == 1:
        return [Layout(1)]
    apart, split = Layout(gpus, expert_parallel=True), Layout(gpus)
    experts = [replace(apart, overlapped=True), apart] if apart.may_overlap(hardware) else [apart]
    return experts * (traffic.parallel != "tensor") + [split] * (traffic.parallel != "expert")


def least_gpus(load: Load, hardware: Hardware) -> Array:
    """The smallest power of two whose memory holds the weights and one request (n,)."""
    room, share = hardware.capacity
    need = (load.weight_bytes * share + load.kv_bytes) / room
    return np.exp2(np.ceil(np.log2(np.maximum(need, 1.0)))).astype(np.int64)


def memory_of(load: Load, layout: Layout, batch: Array) -> Array:
    """Bytes of weights and of the KV cache of `batch` requests, on one device in the mean (n,)."""
    return layout.weights(load) + batch / layout.ranks * load.kv_bytes * layout.kv_share(load)


@dataclass(frozen=True, slots=True)
class Batch:
    """The `largest` batch within memory and the limits (0: none), its mean `step`, which with the batch gives the
    throughput, seconds from one output `token` of a request to its next, and of one `prompt`; all (n,)."""

    largest: Array
    step: Array
    token: Array
    prompt: Array


def largest_batch(load: Load, layout: Layout, traffic: Traffic, hardware: Hardware) -> Batch:
    """The largest batch within memory, `tpot` and `ttft`."""
    most = _most(load, layout, traffic, hardware)
    return _timed(load, layout, traffic, hardware, most, None)


def cheaper_batch(
    load: Load, floor: Floor, layout: Layout, traffic: Traffic, hardware: Hardware, beaten: Array
) -> tuple[Array, Load, Batch]:
    """The shapes whose tokens may take fewer device-seconds than `beaten` under this layout, as an index into all,
    their load, and their `largest_batch`. `beaten` (n,) are those of a way that is known, infinite where none is; a
    shape that cannot be cheaper is left out, or has a batch of 0."""
    most, least = floor.bounds(load, layout, hardware, traffic, _most(load, layout, traffic, hardware))
    may = (most >= (traffic.batch or 1)) & (least < beaten)
    tried = np.flatnonzero(may)
    if len(tried) > MANY * len(may):
        tried, most = np.arange(len(may)), np.where(may, most, 0.0)
    some = load if len(tried) == len(may) else load.take(tried)
    return tried, some, _timed(some, layout, traffic, hardware, most[tried], beaten[tried])


def _most(load: Load, layout: Layout, traffic: Traffic, hardware: Hardware) -> Array:
    """The largest batch that memory and the server allow; 0 where `batch` does not fit (n,)."""
    memory, share = hardware.capacity
    room = memory - share * layout.weights(load)
    cap = traffic.batch or traffic.most(hardware.calibrated(traffic.engine)) * layout.gpus
    most = np.minimum(layout.ranks * np.floor(room / (load.kv_bytes * layout.kv_share(load))), cap)
    return np.where(layout.fits(load) & (most >= (traffic.batch or 1)), most, 0.0)


def _timed(
    load: Load, layout: Layout, traffic: Traffic, hardware: Hardware, most: Array, beaten: Array | None
) -> Batch:
    """The largest batch up to `most` within the limits."""
    steps = step_of(load, layout, hardware, traffic, mixed=not traffic.disaggregated)
    prompt = prompt_time(load, layout, traffic, steps)
    gpus = None if traffic.batch else layout.gpus
    return Batch(*_within(steps, most, _limit(traffic, prompt), gpus, beaten), prompt)


def _limit(traffic: Traffic, first: Array) -> Array:
    """Seconds of a step that `tpot` and `ttft` allow, `first` being those of a prompt (n,)."""
    limit = np.full_like(first, np.inf if traffic.tpot is None else traffic.tpot)
    return limit if traffic.ttft is None else np.minimum(limit, traffic.ttft - first)


def _within(
    steps: Step, most: Array, limit: Array, gpus: int | None, beaten: Array | None
) -> tuple[Array, Array, Array]:
    """The largest batch up to `most` whose tokens come within the limit (0: none), its mean step, and the seconds of
    its tokens (n,). Without `gpus` it is `most`."""
    batch = np.maximum(most, 1.0)
    step, token = steps.times(batch)
    late = np.flatnonzero((token > limit) & (most >= 1))
    if len(late) and gpus is not None:
        step, token = step.copy(), token.copy()
        least = np.ones(len(late))
        if beaten is not None:
            # Throughput grows with the batch, and a way is cheaper only if it holds more requests within the limit.
            least = np.maximum(least, gpus * limit[late] / beaten[late])
        some = steps.take(late)
        at_least = some.token_seconds(least)
        kept = np.flatnonzero((at_least <= limit[late]) & (least <= batch[late]))
        most[late], late, some = 0.0, late[kept], some.take(kept)
        batch[late] = _shrink(some, least[kept], at_least[kept], batch[late], token[late], limit[late])
        step[late], token[late] = some.times(batch[late])
        most[late] = batch[late]
    return np.where((most >= 1) & (token <= limit), batch, 0.0), step, token


def _shrink(steps: Step, low: Array, at_low: Array, high: Array, at_high: Array, limit: Array) -> Array:
    """The largest whole batch found whose tokens come within the limit (n,): false position (Illinois).

    `low` is within the limit and `high` is not; `at_low` and `at_high` are their seconds.
    """
    under, over, side = at_low - limit, at_high - limit, np.zeros(len(low))
    # Seconds bend downwards over the batch and upwards over its logarithm: first between the chords over both.
    share = _chord(under, over)
    middle = np.sqrt((low + (high - low) * share) * low * (high / low) ** share)
    for _ in range(FALSE_POSITIONS):
        off = steps.token_seconds(middle) - limit
        ok = off <= 0
        # An end that stays twice counts half, or false position would creep towards the limit from one side.
        stale = np.where((ok == (side > 0)) & (side != 0), 0.5, 1.0)
        side = np.where(ok, 1.0, -1.0)
        under, over = np.where(ok, off, under * stale), np.where(ok, over * stale, off)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
        middle = low + (high - low) * np.clip(_chord(under, over), 0.005, 0.995)
    batch = np.maximum(np.floor(CAREFUL * (low + (high - low) * _chord(under, over)) + 0.1), np.floor(low + 1e-9))
    seconds = steps.token_seconds(batch)
    above = np.flatnonzero(seconds > limit)
    if len(above):
        batch[above] = _halved(steps.take(above), low[above], batch[above], limit[above])
    few = np.flatnonzero((batch < FEW) & (batch + 1 <= high))
    if len(few):
        more = steps.take(few).token_seconds(batch[few] + 1)
        batch[few[more <= limit[few]]] += 1
    return batch


def _halved(steps: Step, low: Array, high: Array, limit: Array) -> Array:
    """A whole batch within the limit (n,), by bisection between `low`, which is within it, and `high`."""
    low = np.maximum(np.floor(low + 1e-9), 1.0)
    for _ in range(HALVINGS):
        middle = np.floor((low + high) / 2)
        ok = steps.token_seconds(middle) <= limit
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return low


def _chord(under: Array, over: Array) -> Array:
    """Where the chord from `under` (at most 0) to `over` (at least 0) crosses zero, as a share of its length."""
    return np.asarray(-under / np.maximum(over - under, 1e-30))
