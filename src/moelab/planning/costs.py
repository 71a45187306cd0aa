"""Dollars of a design's training, serving and lifetime, with 80 % intervals and the calibrations behind them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from moelab.planning.budget import Budget, Serving
from moelab.planning.candidate import Candidate, Interval
from moelab.quantities import format_dollars
from moelab.serving.calibration import Z80
from moelab.serving.doubts import calibration_of, not_calibrated
from moelab.serving.replicates import Replicates
from moelab.serving.slips import odd_price

WORDS = {"train": "training", "serve": "serving", "lifetime": "lifetime"}
"""What a price is called, by its key."""


def served_with(cost: dict[str, Any] | None, wanted: Serving | None) -> dict[str, Any] | None:
    """One design's serving with its calibration and what that has no rows of; None without serving."""
    if cost is None or wanted is None:
        return None
    missing = not_calibrated(wanted.device, wanted.traffic, cost["gpus"])
    calibration = calibration_of(wanted.device, wanted.traffic, cost["gpus"])
    return cost | {"calibration": calibration.summary(), "not_calibrated": missing}


def cost_of(
    train: float | None, training: Mapping[str, Any] | None, serving: Mapping[str, Any] | None, tokens: float | None
) -> dict[str, Any]:
    """Dollars as plain data: `train`; with `tokens` to serve, `serve` and `lifetime` too.

    Each has NAME_low and NAME_high, None where nothing measured supports an interval, and `calibration` names what
    `train` and `serve` come from. Errors of training and serving come from different measurements, so the interval of
    `lifetime` adds their half-widths in quadrature. The cost at a stated MFU counts as exact there. Where no price of
    a device is known, or the devices cannot train the design (a price of infinity or NaN), `train` is None; where
    they cannot serve it, `serve` is absent; without one of them, so is `lifetime`.
    """
    train = train if train is not None and math.isfinite(train) else None
    predicted = training if training is not None and training["predicted"] else None
    factors = [math.nan, math.nan] if predicted is None else _over(predicted, "dollars")
    cost: dict[str, Any] = {"train": train, **_ends("train", train, factors)}
    cost["calibration"] = {"train": None if predicted is None else predicted["calibration"]}
    if serving is None or tokens is None:
        return cost
    cost["calibration"]["serve"] = serving["calibration"]
    million = serving["cost_per_million_tokens"]
    if million is None or not math.isfinite(million):
        return cost
    served = million * tokens / 1e6
    cost |= {"serve": served, **_ends("serve", served, _over(serving, "cost_per_million_tokens"))}
    if train is None:
        return cost
    cost["lifetime"] = train + served
    for end, sign in (("low", -1), ("high", 1)):
        halves = [abs((cost[f"{name}_{end}"] or cost[name]) - cost[name]) for name in ("train", "serve")]
        known = cost[f"serve_{end}"] is not None
        cost[f"lifetime_{end}"] = train + served + sign * math.hypot(*halves) if known else None
    return cost


def cost_ratio(
    costs: Sequence[Mapping[str, Any]],
    first: int,
    second: int,
    train: Replicates | None = None,
    serve: Replicates | None = None,
) -> Interval:
    """The 80 % interval of the ratio of the costs of two of n designs, priced on the same devices and traffic.

    What all designs share cancels: device, engine, release. Designs whose experts differ in width have the residual of
    measured pairs of models, so their ratio can be as uncertain as a price.

    Args:
        costs: What `cost_of` gave for each design: `lifetime` is compared, or `train` without serving.
        first: Index of the design whose cost is divided.
        second: Index of the other.
        train: `training_replicates` of the designs; None: the cost of training counts as exact, as at a stated MFU.
        serve: `serving_replicates` of the designs; None: that of serving counts as exact.

    Returns:
        The ratio with its interval. Errors of training and serving come from different measurements: their variances,
        weighed by their shares of each design's cost, add up. A difference is real where 1 is outside.
    """
    pair = (costs[first], costs[second])
    total = [cost.get("lifetime", cost["train"]) for cost in pair]
    variance = 0.0
    for name, replicates in (("train", train), ("serve", serve)):
        if replicates is not None and name in pair[0]:
            shares = [cost[name] / whole for cost, whole in zip(pair, total, strict=True)]
            variance += float(replicates.variance(first, second, *shares))
    value, factor = total[0] / total[1], math.exp(Z80 * math.sqrt(variance))
    return Interval(value, value / factor, value * factor)


def _over(values: Mapping[str, Any], name: str) -> list[float]:
    """The ends of an interval over its value; NaN where there is none."""
    ends = (values.get(f"{name}_low"), values.get(f"{name}_high"))
    return [math.nan if end is None or not values[name] else end / values[name] for end in ends]


def _ends(name: str, value: float | None, factors: list[float]) -> dict[str, float | None]:
    ends = zip(("low", "high"), factors, strict=True)
    known = {end: None if value is None or not math.isfinite(factor) else value * factor for end, factor in ends}
    return {f"{name}_{end}": worth for end, worth in known.items()}


def unpriced(budget: Budget) -> list[str]:
    """A line for each kind of devices whose price is not known, with the option that gives it."""
    devices: dict[str, list[str]] = {}
    if budget.serving is not None and budget.serving.price is None:
        devices.setdefault(budget.serving.device.name, []).append("--gpu-price")
    if budget.training_device is not None and budget.training_hour is None:
        served = budget.serving is not None and budget.training_device.name in devices
        if not served:
            devices.setdefault(budget.training_device.name, []).append("--train-gpu-price")
    return [
        f"no price is known for {name}: dollars are left out; give {' or '.join(options)}"
        for name, options in devices.items()
    ]


def odd_prices(budget: Budget) -> list[str]:
    """A line for each given price that is 0 or far from the hardware file's, and for a device's price of one offer."""
    wanted, trains, lines = budget.serving, budget.training_device, list[str]()
    if wanted is not None:
        lines += odd_price("--gpu-price", wanted.gpu_price, wanted.device)
    known = wanted is not None and budget.train_gpu_price is None and trains == wanted.device
    if trains is not None and not known:  # else the price of serving is that of training
        lines += odd_price("--train-gpu-price", budget.train_gpu_price, trains)
    return lines


def price_lines(best: Candidate) -> list[str]:
    """For people: the intervals of design 1's prices, and the calibrations that they come from; none without prices."""
    serving, cost = best.serving, best.cost or {}
    used = cost.get("calibration", {})
    found, sources = [], []
    if serving is not None and serving["cost_per_million_tokens"] is not None:
        found.append(f"a million tokens {_text(serving, 'cost_per_million_tokens')}")
        sources.append(source_line("serving", serving["calibration"], serving["not_calibrated"]))
    found += [f"{word} {_text(cost, name)}" for name, word in WORDS.items() if cost.get(name) is not None]
    if used.get("train") is not None and cost["train"] is not None:
        sources.append(source_line("training", used["train"]))
    if not sources:
        return []
    return [f"Prices of design 1 with 80 % intervals: {'; '.join(found)}.", f"Calibrations: {'; '.join(sources)}."]


def cost_cells(best: Candidate) -> list[list[str]]:
    """The costs of training, serving and both as rows of the table of `served_cells`, without limits."""
    cost = best.cost or {}
    return [
        [f"cost, {word}", format_dollars(cost[name]), _ends_text(cost, name), "-", "-"]
        for name, word in WORDS.items()
        if cost.get(name) is not None
    ]


MISSING = {
    "precision": "weights in this precision",
    "kv_precision": "a cache in this precision",
    "engine": "this engine",
    "gpus": "so many devices, or over several nodes",
    "cached": "cached prefixes",
    "draft": "drafted tokens",
    "disaggregated": "disaggregated prompts",
}
"""What no measured row of a calibration has, by its name in `not_calibrated`, where a price depends on it."""


def source_line(what: str, calibration: Mapping[str, Any], missing: Sequence[str] = ()) -> str:
    """For people: the calibration of a price with its held-out error, and what it has no rows of."""
    if calibration["error"] is None:
        return f"{what}, {calibration['id']}, not calibrated, so without interval"
    words = [MISSING[name] for name in missing if name in MISSING] or calibration.get("without_rows", [])
    absent = ", ".join(words)
    return (
        f"{what}, {calibration['id']}, {calibration['n_rows']} rows, held-out error "
        f"{calibration['error']:.0%}{absent and f' (no rows with {absent})'}"
    )


def _ends_text(values: Mapping[str, Any], name: str) -> str:
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    return "-" if low is None else f"{format_dollars(low)} to {format_dollars(high)}"


def _text(values: Mapping[str, Any], name: str) -> str:
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    middle = format_dollars(values[name])
    return middle if low is None else f"{middle} [{format_dollars(low)}, {format_dollars(high)}]"
