"""Why a model cannot be served as asked: the limit that cannot be met, and its nearest feasible value."""

import math
from collections.abc import Sequence

import numpy as np

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.quantities import format_bytes, format_seconds, parse_seconds
from moelab.serving.batch import largest_batch, layouts_of, least_gpus
from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout
from moelab.serving.traffic import Traffic
from moelab.serving.work import Load, load_of

UNLIMITED = 10**12
"""More requests a device than any memory holds."""


def refuse_impossible(hardware: Hardware, traffic: Traffic) -> None:
    """Raises InputError where the engine that is asked for does not run on the device: TensorRT-LLM is NVIDIA's; and
    where one device is to have more than the load of all."""
    most = traffic.gpus or traffic.max_gpus
    if traffic.imbalance is not None and traffic.imbalance > most > 1:
        raise InputError(
            f"imbalance: must be at most the number of devices, {most:,}, as the busiest has no more than the load of "
            f"all; got {traffic.imbalance:g}"
        )
    if traffic.engine == "tensorrt-llm" and hardware.name.split()[:1] in (["AMD"], ["Google"]):
        raise InputError(f"engine: tensorrt-llm runs on NVIDIA's devices, not on {hardware.name}; use vllm or sglang")


def why_not(model: ModelConfig, traffic: Traffic, hardware: Hardware) -> str:
    """Which limit cannot be met, and its nearest feasible value: memory, latencies, or the batch within them."""
    load = load_of(Shape.of(model), traffic, hardware)
    free = traffic.model_copy(update={"tpot": None, "ttft": None, "batch": 1})
    layouts = layouts_of(traffic, hardware)
    fitting = [layout for layout in layouts if largest_batch(load, layout, free, hardware).largest[0] >= 1]
    if not fitting:
        if traffic.parallel == "expert" and not any(layout.fits(load)[0] for layout in layouts):
            experts = int(load.n_experts[0])
            return f"parallel: expert needs an expert on each of {traffic.gpus} devices, the model has {experts}"
        if traffic.parallel == "expert" and (line := _too_long(load, traffic, hardware)):
            return line
        need = int(least_gpus(load, hardware)[0])
        have = traffic.gpus or traffic.max_gpus
        return (
            f"gpus: {have} x {hardware.name} ({format_bytes(hardware.memory)} each) cannot hold weights and a request "
            f"({format_bytes(float(load.weight_bytes[0] + load.kv_bytes[0]))}); the nearest feasible value is {need}"
        )
    late = _too_late(load, fitting, traffic, hardware, free)
    if late:
        return "; ".join(late)
    most = traffic.model_copy(update={"batch": None, "max_batch": UNLIMITED})
    largest = max(int(largest_batch(load, layout, most, hardware).largest[0]) for layout in fitting)
    limits = [name for name in ("tpot", "ttft") if getattr(traffic, name) is not None]
    return (
        f"batch: {traffic.batch:,} does not fit {_and(['memory', *limits])}; the nearest feasible value is {largest:,}"
    )


def _too_long(load: Load, traffic: Traffic, hardware: Hardware) -> str:
    """Where weights fit and one request does not: it lies on one device. Empty where weights do not fit either."""
    memory, share = hardware.capacity
    layouts = [layout for layout in layouts_of(traffic, hardware) if layout.fits(load)[0]]
    rooms = [memory - share * float(layout.weights(load)[0]) for layout in layouts]
    if max(rooms) <= 0:
        return ""
    need = format_bytes(float(load.kv_bytes[0]))
    return (
        f"parallel: expert keeps a request's whole cache ({need}) on one device, which "
        f"has {format_bytes(max(rooms))} beside the weights; use tensor, or shorter requests"
    )


def _too_late(load: Load, layouts: Sequence[Layout], traffic: Traffic, hardware: Hardware, free: Traffic) -> list[str]:
    """The limits on latency that not even batch 1 meets, each with its nearest value; together they are feasible."""
    steps = [largest_batch(load, layout, free, hardware) for layout in layouts]
    times = [(float(each.token[0]), float((each.prompt + each.token)[0])) for each in steps]
    lines = []
    ttft = np.inf if traffic.ttft is None else traffic.ttft
    fastest = min(total for _, total in times)
    if ttft < fastest:
        lines.append(_unmet("ttft", ttft, fastest))
        ttft = parse_seconds(_rounded_up(fastest))
    within = min(step for step, total in times if total <= ttft)
    if traffic.tpot is not None and traffic.tpot < within:
        lines.insert(0, _unmet("tpot", traffic.tpot, within))
    return lines


def _unmet(name: str, limit: float, nearest: float) -> str:
    shown = _rounded_up(nearest)
    return f"{name}: {format_seconds(limit)} cannot be met; the nearest feasible value is {shown}"


def _rounded_up(seconds: float) -> str:
    """A time in three digits, not below the given one, as `--tpot` reads it."""
    scale, unit = (1e3, "ms") if seconds < 1 else (1.0, "s")
    digits = 2 - math.floor(math.log10(seconds * scale))
    value = math.ceil(seconds * scale * 10**digits * (1 + 1e-9)) / 10**digits
    return f"{np.format_float_positional(value, trim='-')} {unit}"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} together"
