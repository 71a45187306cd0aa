"""Yun et al.'s simpler serving model (arXiv 2404.02852): latencies looked up in tables, no roofline, one device type.

KV cache per request (2p + n) h l elements on average (p prompt, n output tokens, width h, depth l); the largest batch
b = (G M_0 - N) / ((2p + n) h l) with memory M_0 in elements per device; one iteration takes prefill(b / n) + decode(b);
throughput is b over that; the price per token is G C_0 / throughput, least over the number of devices G with G M_0 > N.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moelab.config import load_yaml
from moelab.errors import InputError

Latency = Callable[[float, int], float]
"""Seconds for a batch on a number of devices."""


def table(points: Mapping[int, Mapping[float, float]]) -> Latency:
    """A measured latency table {devices: {batch: seconds}} as a function: linear between batches and beyond the last.

    Raises InputError for a number of devices that was not measured.
    """
    curves = {
        gpus: (np.array(sorted(rows)), np.array([rows[b] for b in sorted(rows)])) for gpus, rows in points.items()
    }
    for gpus, (batches, seconds) in curves.items():
        if len(batches) < 2 or (seconds <= 0).any():
            raise InputError(f"latency table: {gpus} devices need at least two batches with positive seconds")

    def latency(batch: float, gpus: int) -> float:
        if gpus not in curves:
            raise InputError(f"latency table: {gpus} devices were not measured; known: {sorted(curves)}")
        batches, seconds = curves[gpus]
        if batch > batches[-1]:
            slope = (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])
            return float(seconds[-1] + (batch - batches[-1]) * slope)
        return float(np.interp(batch, batches, seconds))

    return latency


def load_tables(path: str) -> tuple[Latency, Latency]:
    """Prefill and decode latencies from YAML: {prefill: {DEVICES: {BATCH: SECONDS}}, decode: {...}}."""
    value = load_yaml(path)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleServing:
    """The cheapest number of devices: batch (real-valued), output tokens a second, dollars per million of them."""

    gpus: int
    batch: float
    tokens_per_second: float
    cost_per_million_output_tokens: float


def serve_simple(
    *,
    params_total: float,
    d_model: int,
    n_layers: int,
    prompt: int,
    output: int,
    memory_elements: float,
    price_per_hour: float,
    prefill: Latency,
    decode: Latency,
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
        if best is None or price < best.cost_per_million_output_tokens:
            best = SimpleServing(gpus=count, batch=batch, tokens_per_second=speed, cost_per_million_output_tokens=price)
    if best is None:
        need = (params_total + per_request) / memory_elements
        raise InputError(
            f"gpus: {max(gpus)} cannot hold the weights and one request; the nearest feasible value is {need:.1f}"
        )
    return best
