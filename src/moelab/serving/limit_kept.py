"""What a limit on the time per output token costs where it is to be met with 90 %, and not only as predicted."""

import math
from typing import Any

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.quantities import format_dollars, format_seconds
from moelab.serving.calibration import Z80
from moelab.serving.cost import serve_one
from moelab.serving.hardware import Hardware
from moelab.serving.traffic import Traffic


def limit_kept(
    model: ModelConfig, cost: dict[str, Any], traffic: Traffic, hardware: Hardware, gpu_price: float | None
) -> list[str]:
    """A line where the limit lies inside the interval of the time per output token, for the answer of `serve_one`.

    Intervals of throughput and price are those of the answer's batch. A server that is slower than predicted and keeps
    its limit holds fewer requests, so its price may be above the interval: what meets the limit at the upper end of
    its times is found by the limit divided by the interval's factor. None where the batch is given.
    """
    value, high = cost["time_per_output_token"], cost["time_per_output_token_high"]
    if traffic.tpot is None or traffic.batch is not None or high is None or high <= traffic.tpot:
        return []
    factor = high / value
    met = 0.5 * math.erfc(math.log(value / traffic.tpot) * Z80 / math.log(factor) / math.sqrt(2))
    words = (
        f"the limit of {format_seconds(traffic.tpot)} per output token is met with a probability of {met:.0%}, and "
        "throughput and price are those of this batch"
    )
    try:
        sure = serve_one(model, traffic.replace(tpot=traffic.tpot / factor), hardware, gpu_price)
    except InputError:
        return [f"{words}; no batch on {_devices(traffic)} meets it with 90%"]
    dollars = sure["cost_per_million_tokens"]
    priced = "" if dollars is None else f", {format_dollars(dollars)} a million tokens"
    return [f"{words}; with 90% it is met by {sure['batch']:,} requests on {sure['gpus']:,} devices{priced}"]


def _devices(traffic: Traffic) -> str:
    return f"{traffic.gpus:,} devices" if traffic.gpus else f"up to {traffic.max_gpus:,} devices"
