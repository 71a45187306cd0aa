"""The step of a load under a layout."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.coefficients import CHUNK
from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout, communication
from moelab.serving.precision import stored
from moelab.serving.step import Measured, Step
from moelab.serving.traffic import Traffic
from moelab.serving.work import Load

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Mix:
    """How the tokens of prompts and drafted ones join steps: `width` tokens of each request, of which `produced` are
    kept on average; prompts begun per request and step in `begins` chunks of `chunk` tokens, `reading` tokens together.
    `guessing` layers of multi-token prediction for each drafted token, as a factor of the model's layers."""

    width: float
    produced: float
    begins: float
    chunk: float
    reading: float
    guessing: Any

    @classmethod
    def of(cls, load: Load, traffic: Traffic, mixed: bool = True) -> "Mix":
        """Of a traffic; without `mixed`, steps read no prompts."""
        reads = traffic.reads if mixed else 0.0
        pieces = np.ceil(reads / CHUNK)
        return cls(
            width=traffic.draft + 1.0,
            produced=traffic.produced,
            begins=float(pieces / traffic.output * traffic.produced),
            chunk=float(reads / pieces) if pieces else 0.0,
            reading=reads / traffic.output * traffic.produced,
            guessing=1 + traffic.draft / load.layers if traffic.draft else 1.0,
        )

    @property
    def steps(self) -> Any:
        """Steps that one stands for, those of guessed tokens among them."""
        return self.guessing * max(self.begins, 1.0)

    @property
    def tokens(self) -> float:
        """Tokens that a request adds to the mean step."""
        return self.width + self.reading


def step_of(load: Load, layout: Layout, hardware: Hardware, traffic: Traffic, mixed: bool = True) -> Step:
    """Steps under a layout; with `mixed` they read the traffic's prompts too, else they decode alone."""
    g, ranks, mix = layout.gpus, layout.ranks, Mix.of(load, traffic, mixed)
    calibration = hardware.calibrated(traffic.engine)
    uneven = min(traffic.uneven(calibration), g) if layout.expert_parallel else 1.0
    waiting, moved = communication(load, layout, hardware, calibration)
    guessing, attending = mix.guessing, layout.scores_share(load)
    linear = np.maximum(load.scores * (mix.width * attending), load.read_kv * layout.kv_share(load)) * guessing
    linear += calibration.coefficients.request * calibration.slowdown
    linear += (load.activations if layout.overlapped else load.activations + moved) * mix.tokens
    prompts = load.prompt_scores * (mix.reading * attending)
    linear += prompts
    prompts += (load.activations if layout.overlapped else load.activations + moved) * mix.reading
    fixed = twice(load, calibration.coefficients.step * calibration.slowdown) if layout.overlapped else load.fixed
    return Step(
        fixed=(fixed if layout.overlapped else fixed + waiting) * mix.steps,
        linear=linear / ranks,
        dense=load.dense * (guessing / g),
        read_dense=load.read_dense * (guessing * ranks / g),
        experts=load.experts * (guessing * uneven / g),
        read_experts=load.read_experts * (guessing / g),
        padding=load.padding * (guessing * uneven / g),
        head=load.head / g,
        read_head=load.read_head * (ranks / g),
        log_miss=load.log_miss,
        moved=moved,
        prompts=prompts / ranks,
        waits=2 * waiting * mix.steps if layout.overlapped else None,
        sent=moved * (mix.tokens / ranks) if layout.overlapped else None,
        begins=mix.begins,
        chunk=mix.chunk,
        width=mix.width,
        produced=mix.produced,
        graphs=None if traffic.graph_sizes is None else np.array(traffic.graph_sizes, float),
        ranks=ranks,
        measured=_measured(load, hardware, traffic),
    )


def twice(load: Load, step: float) -> Array:
    """Fixed seconds of two half batches: each launches every kernel; the server's own time of a step stays (n,)."""
    return 2 * load.fixed - step


def _measured(load: Load, hardware: Hardware, traffic: Traffic) -> Measured | None:
    """The measured products of the traffic's precision; None where there are none."""
    calibration = hardware.calibrated(traffic.engine)
    rates = (calibration.products or {}).get(traffic.precision)
    if rates is None:
        return None
    kept, c = stored(traffic.precision, hardware), calibration.coefficients
    matrices = np.maximum(3.0 * load.n_experts * load.moe_layers, 1.0)
    widths = np.sqrt(np.maximum(load.expert_bytes / kept.expert_bytes / matrices, 1.0))
    return Measured(rates, kept.other_rate * c.matmul, kept.expert_rate * c.experts, widths)
