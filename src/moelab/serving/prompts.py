"""Seconds in which devices read prompts: one alone until its first token, or many at once."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.coefficients import CHUNK
from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout
from moelab.serving.loaded_step import step_of
from moelab.serving.step import Step
from moelab.serving.traffic import Traffic
from moelab.serving.work import Load

Array = NDArray[Any]


def prompt_time(load: Load, layout: Layout, traffic: Traffic, step: Step) -> Array:
    """Seconds to read one prompt until its first token, alone on the devices (n,); `step` is the layout's. Under expert
    parallelism a prompt is not split over devices: all but its experts run on one."""
    return _reading(load, layout, traffic, step, 1.0, 1.0)


def reading_time(load: Load, layout: Layout, hardware: Hardware, traffic: Traffic) -> Array:
    """Seconds per prompt of a group that reads prompts alone (n,): as many at once as a chunk holds, and under expert
    parallelism so many on each device, while the experts' products hold the tokens of all. Its exchanges run beside
    computing where that is faster, however the devices do that answer."""
    at_once = max(CHUNK // max(traffic.reads, 1.0), 1.0)
    ways = [replace(layout, overlapped=halves) for halves in (False, True)[: 1 + layout.may_overlap(hardware)]]
    steps = [(way, step_of(load, way, hardware, traffic, mixed=False)) for way in ways]
    times = [_reading(load, way, traffic, step, way.ranks * at_once, at_once) for way, step in steps]
    return np.asarray(np.minimum.reduce(times) / (layout.ranks * at_once))


def _reading(load: Load, layout: Layout, traffic: Traffic, step: Step, prompts: float, on_one: float) -> Array:
    """Seconds in which a group reads `prompts` together, of which `on_one` lie on its busiest rank (n,)."""
    if not traffic.reads:
        return np.zeros_like(load.read_kv)
    pieces, guessing = np.ceil(traffic.reads / CHUNK), 1 + traffic.draft / load.layers if traffic.draft else 1.0
    tokens = np.full_like(load.read_kv, traffic.reads / pieces)
    products = step.halved(prompts * tokens, layout.ranks * on_one * tokens)
    per_token = load.activations + load.prompt_scores * layout.scores_share(load)
    steps, sent = pieces / guessing, on_one * traffic.reads * step.moved
    one = 1 / max(step.begins, 1.0)
    computing = steps * (step.fixed * one + products) + on_one * traffic.reads * per_token
    return np.asarray(
        computing + sent if step.waits is None else np.maximum(computing, steps * one * step.waits + sent)
    )
