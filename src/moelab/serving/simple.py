"""Yun et al.'s simpler serving model (arXiv 2404.02852): latencies looked up in tables, no roofline, one device type.

KV cache per request (2p + n) h l elements on average (p prompt, n output tokens, width h, depth l); the largest batch
b = (G M_0 - N) / ((2p + n) h l) with memory M_0 in elements per device; one iteration takes prefill(b / n) + decode(b);
throughput is b over that; the price per token is G C_0 / throughput, least over the number of devices G with G M_0 > N.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moelab.config import load_yaml
from moelab.errors import InputError
from moelab.notebook import Shown

FALL = 0.9
"""A larger batch may take this share of a smaller one's time before the table is refused: measurements scatter."""


@dataclass(frozen=True)
class Latency:
    """A measured table: seconds for a batch on a number of devices, linear between batches and beyond the last one."""

    curves: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]]

    @property
    def gpus(self) -> tuple[int, ...]:
        """The numbers of devices that were measured."""
        return tuple(sorted(self.curves))

    def largest(self, gpus: int) -> float:
        """The largest batch that was measured on so many devices."""
        return float(self.curves[gpus][0][-1])

    def __call__(self, batch: float, gpus: int) -> float:
        """Seconds. Raises InputError for a number of devices that was not measured."""
        if gpus not in self.curves:
            raise InputError(f"latency table: {gpus} devices were not measured; known: {list(self.gpus)}")
        batches, seconds = self.curves[gpus]
        if batch > batches[-1]:
            # Where the last two points fall by noise, time stays level: it never becomes negative.
            slope = max(0.0, float((seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])))
            return float(seconds[-1] + (batch - batches[-1]) * slope)
        return float(np.interp(batch, batches, seconds))


def table(points: Mapping[int, Mapping[float, float]]) -> Latency:
    """A measured latency table {devices: {batch: seconds}}. Raises InputError for one that no machine gives."""
    if not points or min(points) < 1:
        raise InputError(f"latency table: expected numbers of devices, at least 1, got {sorted(points)}")
    curves = {
        gpus: (np.array(sorted(rows)), np.array([rows[b] for b in sorted(rows)])) for gpus, rows in points.items()
    }
    for gpus, (batches, seconds) in curves.items():
        numbers = np.isfinite(batches).all() and np.isfinite(seconds).all()
        if len(batches) < 2 or not numbers or (batches <= 0).any() or (seconds <= 0).any():
            raise InputError(
                f"latency table: {gpus} devices need at least two batches with seconds, all positive and finite"
            )
        falls = np.flatnonzero(seconds[1:] < FALL * seconds[:-1])
        if len(falls):
            i = int(falls[0])
            raise InputError(
                f"latency table: {gpus} devices: seconds fall from {seconds[i]:g} at batch {batches[i]:g} to "
                f"{seconds[i + 1]:g} at {batches[i + 1]:g}; a larger batch cannot be faster"
            )
    return Latency(curves)


def load_tables(path: str) -> tuple[Latency, Latency]:
    """Prefill and decode latencies from YAML: {prefill: {DEVICES: {BATCH: SECONDS}}, decode: {...}}."""
    value = load_yaml(path, "latency table")
    if set(value) != {"prefill", "decode"}:
        raise InputError(f"latency table: {path} must hold prefill and decode, got {sorted(map(str, value))}")
    try:
        measured = {
            name: {int(g): {float(b): float(s) for b, s in rows.items()} for g, rows in value[name].items()}
            for name in ("prefill", "decode")
        }
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"latency table: {path}: expected {{DEVICES: {{BATCH: SECONDS}}}} of numbers") from None
    return table(measured["prefill"]), table(measured["decode"])


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SimpleServing(Shown):
    """The cheapest number of devices: batch (real-valued), output tokens a second, times in seconds, dollars per
    million tokens (prompt and output) and per million of output, and the elements held in memory."""

    gpus: int
    batch: float
    tokens_per_second: float
    time_to_first_token: float
    time_per_output_token: float
    cost_per_million_tokens: float
    cost_per_million_output_tokens: float
    memory_elements: float

    def doubts(self, prefill: Latency, decode: Latency, output: int) -> list[str]:
        """Where the answer lies beyond the batches that were measured."""
        asked = {"prefill": (prefill, self.batch / output), "decode": (decode, self.batch)}
        return [
            f"{name} at a batch of {batch:,.4g} is extrapolated: the table ends at {latency.largest(self.gpus):g}"
            for name, (latency, batch) in asked.items()
            if batch > latency.largest(self.gpus)
        ]


def serve_simple(
    *,
    params_total: float,
    d_model: int,
    n_layers: int,
    prompt: int,
    output: int,
    memory_elements: float,
    price_per_hour: float,
    prefill: Callable[[float, int], float],
    decode: Callable[[float, int], float],
    gpus: tuple[int, ...] = (1, 2, 4, 8),
) -> SimpleServing:
    """The paper's serving price of one model. `memory_elements` is M_0, a device's memory in elements of the weights.

    Raises InputError where no number of devices holds the weights and one request.
    """
    per_request = (2 * prompt + output) * d_model * n_layers
    best: SimpleServing | None = None
    for count in gpus:
        batch = (count * memory_elements - params_total) / per_request
        if batch < 1:
            continue
        seconds = prefill(batch / output, count) + decode(batch, count)
        speed = batch / seconds
        price = count * price_per_hour / 3600 / speed * 1e6
        # Without a price, devices are still scarce: compare by device-seconds per token.
        if best is None or count / speed < best.gpus / best.tokens_per_second:
            best = SimpleServing(
                gpus=count,
                batch=batch,
                tokens_per_second=speed,
                time_to_first_token=prefill(1.0, count) + seconds,
                time_per_output_token=seconds,
                cost_per_million_tokens=price * output / (prompt + output),
                cost_per_million_output_tokens=price,
                memory_elements=params_total + batch * per_request,
            )
    if best is None:
        need = (params_total + per_request) / memory_elements
        raise InputError(
            f"gpus: {max(gpus)} cannot hold the weights and one request; the nearest feasible value is {need:.1f}"
        )
    return best
