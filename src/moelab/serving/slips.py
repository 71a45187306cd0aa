"""Values that are allowed and hardly meant: limits that limit nothing, prices far from the published one."""

from typing import Any

from moelab.quantities import format_dollars, format_seconds
from moelab.serving.hardware import Hardware
from moelab.serving.traffic import Traffic

SLOWEST = {"tpot": 1.0, "ttft": 60.0}
"""Seconds from which on a limit on latency is hardly meant: a token a second, a minute before the first."""

WORDS = {"tpot": "per output token", "ttft": "to the first token"}

FAR_PRICE = 10.0
"""Factor of the published price from which on a price is hardly meant."""


def slips(cost: dict[str, Any], traffic: Traffic) -> list[str]:
    """Lines about what is asked of a server: slow limits and prompts of which nothing is computed."""
    lines = []
    for name, most in SLOWEST.items():
        limit = getattr(traffic, name)
        if limit is not None and limit > most:
            value = cost.get({"tpot": "time_per_output_token", "ttft": "time_to_first_token"}[name])
            found = "" if value is None else f" (predicted: {format_seconds(value)})"
            lines.append(f"{name}: a limit of {format_seconds(limit)} {WORDS[name]}{found}; were milliseconds meant?")
    if traffic.cached == 1:
        lines.append(
            "cached: 1 leaves no token of a prompt to compute; engines compute at least the last, so the price is a "
            "lower bound"
        )
    return lines


def odd_price(option: str, price: float | None, device: Hardware) -> list[str]:
    """A line where a given price of a device and hour is 0, or ten times the hardware file's or a tenth of it; without
    a given one, where the hardware file's is one offer."""
    if price is None:
        if device.prices is None or not device.prices.single:
            return []
        return [
            f"{option}: {format_dollars(device.prices.typical)} an hour of {device.name} is one offer, as of "
            f"{device.prices.date}; most other prices are the middle of several offers"
        ]
    if price == 0:
        return [f"{option}: at a price of 0 all dollars of {device.name} are 0, and choose nothing"]
    usual = device.price
    if not usual or usual / FAR_PRICE <= price <= usual * FAR_PRICE:
        return []
    times = f"{price / usual:.3g} times"
    return [f"{option}: {format_dollars(price)} an hour is {times} the {format_dollars(usual)} known for {device.name}"]
