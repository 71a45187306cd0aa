"""What limits on latency cost where they are to be met with 90 %, and not only as predicted."""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.quantities import format_dollars, format_seconds
from moelab.serving.calibration import probability_below
from moelab.serving.cost import serve_one
from moelab.serving.hardware import Hardware
from moelab.serving.traffic import Traffic

LIMITS = {
    "tpot": ("time_per_output_token", "per output token"),
    "ttft": ("time_to_first_token", "to the first token"),
}


def limit_kept(
    model: ModelConfig, cost: dict[str, Any], traffic: Traffic, hardware: Hardware, gpu_price: float | None
) -> list[str]:
    """A line where a limit lies inside the interval of its time, for the answer of `serve_one`.

    Intervals of throughput and price are those of the answer's batch. A server that is slower than predicted and keeps
    its limit holds fewer requests, so its price may be above the interval: what meets the limits at the upper end of
    its times is found by the limits divided by the interval's factor. None where the batch is given.
    """
    found, lower = [], {}
    for name, (time, words) in LIMITS.items():
        limit, value, high = getattr(traffic, name), cost[time], cost[f"{time}_high"]
        if limit is None or high is None:
            continue
        lower[name] = limit * value / high
        if high > limit:
            met = probability_below(value, limit, high / value)
            found.append(f"the limit of {format_seconds(limit)} {words} is met with a probability of {met:.0%}")
    if not found or traffic.batch is not None:
        return []
    line = f"{' and '.join(found)}, and throughput and price are those of this batch"
    they, are = ("they", "are") if len(lower) > 1 else ("it", "is")
    try:
        sure = serve_one(model, traffic.replace(**lower), hardware, gpu_price)
    except InputError:
        return [f"{line}; no batch on {_devices(traffic)} meets {'them' if len(lower) > 1 else 'it'} with 90%"]
    dollars = sure["cost_per_million_tokens"]
    priced = "" if dollars is None else f", {format_dollars(dollars)} a million tokens"
    requests, gpus = f"{sure['batch']:,} request{'s' * (sure['batch'] > 1)}", sure["gpus"]
    return [f"{line}; with 90% {they} {are} met by {requests} on {gpus:,} device{'s' * (gpus > 1)}{priced}"]


def _devices(traffic: Traffic) -> str:
    return f"{traffic.gpus:,} devices" if traffic.gpus else f"up to {traffic.max_gpus:,} devices"
