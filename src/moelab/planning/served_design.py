"""How design 1 is served: latency, throughput, price with 80 % intervals beside their limits, and what is assumed."""

import math
from typing import NamedTuple

from moelab.planning.balance import LEAST_BATCH
from moelab.planning.budget import Budget, Serving
from moelab.planning.candidate import Candidate
from moelab.quantities import format_bytes, format_dollars, format_number, format_seconds
from moelab.serving import serve_one
from moelab.serving.calibration import probability_below
from moelab.serving.hardware import Hardware

COLUMNS = ["quantity", "predicted", "80 % interval", "limit", "probability of meeting it"]
"""Columns of the table of `served_cells`."""

MOST_SURE = 0.99
"""Probability above which it is printed as more than this, and below whose complement as less than that."""

USUAL_TPOT = 0.08
"""Seconds per output token that MLPerf Inference allows its servers of DeepSeek-R1 and gpt-oss-120b; its interactive
limits for them are 15 and 20 ms. Source: inference_rules.adoc of github.com/mlcommons/inference_policies, 2026."""


class Measure(NamedTuple):
    """A predicted quantity of serving with its 80 % interval; None where nothing measured supports an interval.

    `unit` is `s`, `$` or empty; `field` names the limit in the budget. `met` is the probability that the limit is met,
    None without limit or interval.
    """

    name: str
    unit: str
    value: float
    low: float | None
    high: float | None
    field: str = ""
    limit: float | None = None

    @property
    def met(self) -> float | None:
        """From a normal distribution of the logarithm, as the interval is."""
        if self.limit is None or self.low is None or self.high is None or not self.low < self.high:
            return None
        return probability_below(self.value, self.limit, math.sqrt(self.high / self.low))

    @property
    def open(self) -> bool:
        """Whether the limit lies inside the interval."""
        return self.limit is not None and self.low is not None and self.high is not None and (
            self.low < self.limit < self.high
        )  # fmt: skip

    def text(self, value: float | None) -> str:
        """A value in the unit: 30 ms, $2.06, 1.07K."""
        if value is None:
            return "-"
        write = {"s": format_seconds, "$": format_dollars}.get(self.unit, format_number)
        return write(value)

    @property
    def interval(self) -> str:
        """The interval in words: 22.7 ms to 39.6 ms; a dash where there is none."""
        return "-" if self.low is None else f"{self.text(self.low)} to {self.text(self.high)}"

    @property
    def probability(self) -> str:
        """The probability in words: 50 %; a dash where there is none."""
        if self.met is None:
            return "-"
        if not 1 - MOST_SURE <= self.met <= MOST_SURE:
            return f"over {MOST_SURE:.0%}" if self.met > MOST_SURE else f"under {1 - MOST_SURE:.0%}"
        return f"{self.met:.0%}"


def measures(best: Candidate, wanted: Serving | None) -> list[Measure]:
    """Latency, throughput and price of a design as it is served; empty without serving."""
    served = best.serving
    if wanted is None or served is None:
        return []
    traffic = wanted.traffic
    rows = [
        ("time per output token", "s", "time_per_output_token", "tpot", traffic.tpot),
        ("time to the first token", "s", "time_to_first_token", "ttft", traffic.ttft),
        ("output tokens/s of a replica", "", "tokens_per_second", "", None),
        ("price per million tokens", "$", "cost_per_million_tokens", "max_price", wanted.max_price),
        ("price per million output tokens", "$", "cost_per_million_output_tokens", "", None),
    ]
    return [
        Measure(name, unit, served[key], served.get(f"{key}_low"), served.get(f"{key}_high"), field, limit)
        for name, unit, key, field, limit in rows
        if served.get(key) is not None
    ]


def served_cells(best: Candidate, wanted: Serving | None) -> list[list[str]]:
    """The measures as cells of a table; empty without serving."""
    return [
        [row.name, row.text(row.value), row.interval, row.text(row.limit), row.probability]
        for row in measures(best, wanted)
    ]


def open_limits(best: Candidate, wanted: Serving | None) -> list[str]:
    """A sentence for each limit that lies inside the interval of its quantity: the central value counts."""
    return [
        f"the limit {row.text(row.limit)} on the {row.name} lies inside its 80 % interval, {row.interval}: the "
        f"probability of meeting it is {row.probability}, and it counts as met by the central {row.text(row.value)}"
        for row in measures(best, wanted)
        if row.open
    ]


def unlimited(wanted: Serving) -> bool:
    """Whether memory alone limits the batch, and so the latency."""
    traffic = wanted.traffic
    return all(limit is None for limit in (traffic.tpot, traffic.ttft, traffic.batch, traffic.max_batch))


def few_requests(best: Candidate, wanted: Serving | None, within: float | None) -> list[str]:
    """A sentence where design 1 is served at so few requests that devices are badly used, with what limits them; none
    where the traffic states their number.

    `within` is the excess of compute that a balance of loss against cost allows; None without one.
    """
    served = best.serving
    if wanted is None or served is None or served["batch"] >= LEAST_BATCH:
        return []
    if wanted.traffic.batch or wanted.traffic.max_batch:
        return []
    why, more = "weights and KV caches nearly fill the devices", "give more devices (--serve-gpus)"
    if _late(best, wanted):
        why, more = "the limits on latency allow no more", "raise them, give more devices (--serve-gpus)"
    if within is not None:
        why += f", and no design served at {LEAST_BATCH} or more has an excess within the {within:.0%} allowed"
    return [f"the design is served at {served['batch']} requests in flight: {why}; {more} or a limit on parameters"]


def _late(best: Candidate, wanted: Serving) -> bool:
    """Whether the same devices would serve more requests at once without limits on latency."""
    assert best.serving is not None
    free = wanted.traffic.model_copy(update={"tpot": None, "ttft": None, "gpus": best.serving["gpus"]})
    return float(serve_one(best.config, free, wanted.device, wanted.price)["batch"]) > best.serving["batch"]


def slow_without_limit(best: Candidate, wanted: Serving | None) -> list[str]:
    """A sentence where no limit was given and the largest batch makes each token slower than usual."""
    served = best.serving
    if wanted is None or served is None or not unlimited(wanted) or served["time_per_output_token"] <= USUAL_TPOT:
        return []
    return [
        f"without a limit on latency design 1 is priced at the largest batch that fits, {served['batch']:,} requests, "
        f"and takes {format_seconds(served['time_per_output_token'])} per output token: MLPerf's limit for servers of "
        f"DeepSeek-R1 is {format_seconds(USUAL_TPOT)}; set --tpot"
    ]


def assumptions(budget: Budget, best: Candidate) -> list[str]:
    """How design 1 is served, the traffic assumed, and the prices per device and hour; empty without devices."""
    return [*_replica(budget, best), *_hours(budget)]


def _replica(budget: Budget, best: Candidate) -> list[str]:
    wanted, served = budget.serving, best.serving
    if wanted is None or served is None:
        return []
    ahead = f" and {served['prefill_gpus']:g} for prompts" if served["prefill_gpus"] else ""
    return [
        f"A replica of {served['gpus']} {wanted.device_words}{ahead} serves {served['batch']} requests at once; "
        f"weights and the KV caches of all of them fill {format_bytes(served['memory_bytes'])} of its memory. "
        f"Assumed traffic: {wanted.traffic.words}."
    ]


def _hours(budget: Budget) -> list[str]:
    """The price of each kind of device and hour, and where it comes from."""
    priced: dict[str, list[str]] = {}
    trains, wanted = budget.training_device, budget.serving
    if trains is not None and budget.training_hour is not None:
        own = budget.train_gpu_price is not None
        shared = wanted is not None and trains.name == wanted.device.name and wanted.gpu_price is not None
        priced.setdefault(_hour(trains, budget.training_hour, own or shared), []).append("training")
    if wanted is not None and wanted.price is not None:
        priced.setdefault(_hour(wanted.device, wanted.price, wanted.gpu_price is not None), []).append("serving")
    if not priced:
        return []
    listed = "; ".join(f"{' and '.join(uses)}, {text}" for text, uses in priced.items())
    return [f"Price of a device and hour: {listed}."]


def _hour(device: Hardware, price: float, given: bool) -> str:
    text = f"{device.name} at ${price:.2f}"
    if given:
        return f"{text} as given"
    known = device.prices
    if known is None:
        return f"{text}, an assumption without a published price"
    return f"{text} ({known})"
