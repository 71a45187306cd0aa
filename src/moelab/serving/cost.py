"""What serving costs: devices, the largest batch within memory and latency limits, throughput, price. Vectorised.

The cheapest way is that with the lowest upper end of its 80 % interval: a group of more devices than any measured row
must be cheaper by more than what is not known about it. Requests arrive steadily and are of all ages, so a step of
batch b decodes b tokens and reads b / output new prompts (arXiv 2404.02852); throughput = b / step time. The time per
output token is what engines report: from the first token of an answer to its last, without its own prompt. Every time,
throughput and price has the interval of its calibration.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.serving.batch import cheaper_batch, least_gpus, memory_of, ways
from moelab.serving.doubts import calibration_of, not_calibrated
from moelab.serving.floor import Floor
from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout
from moelab.serving.prompts import reading_time
from moelab.serving.refusal import refuse_impossible, why_not
from moelab.serving.serving_columns import ServingCost
from moelab.serving.step import distinct_experts
from moelab.serving.traffic import Traffic
from moelab.serving.work import Load, load_of

Array = NDArray[Any]
CHUNK = 65536
"""Shapes evaluated together: what fits into a core's cache."""


def serve(
    model: ModelConfig | Shape, traffic: Traffic, hardware: Hardware, gpu_price: float | None = None
) -> ServingCost:
    """The cheapest layout and batch for each shape (n,). `gpu_price` replaces the catalogue's dollars per hour."""
    refuse_impossible(hardware, traffic)
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
    traffic = traffic.for_model(model)
    cost = serve(model, traffic, hardware, gpu_price)
    result = cost.to_dict()
    if result is None:
        raise InputError(why_not(model, traffic, hardware))
    devices = result["gpus"] + result["prefill_gpus"]
    energy = None if hardware.power is None else hardware.power * devices / result["tokens_per_second"]
    return result | {
        "joules_per_output_token": energy,
        "calibration": calibration_of(hardware, traffic, result["gpus"]).summary(),
        "not_calibrated": not_calibrated(hardware, traffic, result["gpus"])
        + ["joules_per_output_token"] * (energy is not None),
    }


@dataclass(frozen=True, slots=True)
class _Search:
    """The cheapest way of some shapes so far, and the upper end of its device-seconds per output token: infinite where
    none is known."""

    load: Load
    floor: Floor
    best: ServingCost
    worth: Array

    def view(self, part: slice) -> "_Search":
        """The shapes of a slice; what is written there is written here."""
        return _Search(self.load.take(part), self.floor.take(part), self.best.view(part), self.worth[part])


def _serve(load: Load, traffic: Traffic, hardware: Hardware, price: float | None) -> ServingCost:
    """The cheapest of the layouts for one chunk."""
    n, floor = len(load.read_kv), Floor.of(load, hardware, traffic)
    worth = np.full(n, np.inf)
    if traffic.gpus is not None:
        best = ServingCost.none(n)
        for layout in ways(traffic.gpus, traffic, hardware):
            _improve(_Search(load, floor, best, worth), layout, traffic, hardware)
    else:
        least = least_gpus(load, hardware)
        order = np.argsort(least, kind="stable")
        sorted_best = ServingCost.none(n)
        _try_layouts(_Search(load.take(order), floor.take(order), sorted_best, worth), least[order], traffic, hardware)
        back = np.empty_like(order)
        back[order] = np.arange(n)
        best, worth = sorted_best.take(back), worth[back]
    _price(best, worth, traffic, price)
    touched = distinct_experts(load.n_experts, load.top_k, best.batch)
    best.distinct_experts[:] = np.where(load.n_experts > 0, touched, np.where(best.feasible, 0.0, np.nan))
    return best


def _price(best: ServingCost, worth: Array, traffic: Traffic, price: float | None) -> None:
    """Prices of the ways that were found; NaN where none was."""
    worth = worth / np.where(np.isnan(best.interval_factor), 1.0, best.interval_factor)
    dollars = np.where(best.feasible, worth, np.nan) * (math.nan if price is None else price) / 3600 * 1e6
    best.cost_per_million_output_tokens[:] = dollars
    best.cost_per_million_tokens[:] = dollars * (traffic.output / (traffic.prompt + traffic.output))


def _try_layouts(search: _Search, least: Array, traffic: Traffic, hardware: Hardware) -> None:
    """Write the cheapest layout of every shape over the search. The shapes ascend in `least`, the fewest devices that
    hold them, so that those tried on the same devices are views and no copies."""
    counts, starts = np.unique(least, return_index=True)
    ends = [*starts[1:].tolist(), len(least)]
    groups = [(int(g), search.view(slice(*part))) for g, *part in zip(counts, starts.tolist(), ends, strict=True)]
    for factor in (2**k for k in range(traffic.max_gpus.bit_length())):
        for count, some in groups:
            if count * factor <= traffic.max_gpus:
                for layout in ways(count * factor, traffic, hardware):
                    _improve(some, layout, traffic, hardware)


def _improve(search: _Search, layout: Layout, traffic: Traffic, hardware: Hardware) -> None:
    """Write this layout's result over the search wherever it is cheaper. Without a price, devices are still scarce:
    ways are compared by the upper end of device-seconds per token."""
    factor = calibration_of(hardware, traffic, layout.gpus).factor
    doubt = 1.0 if factor is None else factor
    tried, some, found = cheaper_batch(search.load, search.floor, layout, traffic, hardware, search.worth / doubt)
    batches, steps = found.largest, found.step
    with np.errstate(divide="ignore", invalid="ignore"):
        worth = layout.gpus * steps / batches
        beside = np.zeros_like(worth)
        if traffic.disaggregated:
            # Devices that read prompts for the group: prompts begun each second times the device-seconds of one.
            each = layout.gpus / traffic.output * reading_time(some, layout, hardware, traffic)
            beside, worth = each * batches / steps, worth + each
    worth = worth * doubt
    better = np.flatnonzero((batches >= 1) & (worth < search.worth[tried]))
    if not len(better):
        return
    where, best, batch, token = tried[better], search.best, batches[better], found.token[better]
    search.worth[where] = worth[better]
    best.gpus[where], best.expert_parallel[where] = layout.gpus, layout.expert_parallel
    best.overlapped[where], best.batch[where] = layout.overlapped, batch
    best.tokens_per_second[where] = batch / steps[better]
    best.time_per_output_token[where], best.time_to_first_token[where] = token, found.prompt[better] + token
    best.memory_bytes[where] = layout.gpus * memory_of(some, layout, batches)[better]
    best.prefill_gpus[where] = beside[better]
    best.interval_factor[where] = math.nan if factor is None else factor
