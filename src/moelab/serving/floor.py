"""What a token costs at the least under a layout, from a few products of arrays: layouts that cannot win are left out.

For every batch b, seconds of a step are at least F + b L / g on g devices: F a fixed time, L the device-seconds that a
token adds wherever it lies. So a limit on latency bounds b, and a largest b bounds the device-seconds of a token.
Weights of dense matrices are read or multiplied, whichever takes longer: two such lines, and the larger counts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.hardware import Hardware
from moelab.serving.layout import Layout, communication
from moelab.serving.loaded_step import Mix, twice
from moelab.serving.traffic import Traffic
from moelab.serving.work import Load

Array = NDArray[Any]
MANY = 16
"""Requests from which on their own prompts are at most a sixteenth of a step."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Device-seconds of a token that no layout saves: of dense `matrices` and the head, of `experts`, of `scores` and
    of `prompts`; `own` are seconds of everything that each rank does for itself, and `reading` those of dense weights
    and the head; all (n,)."""

    matrices: Array
    experts: Array
    scores: Array
    prompts: Array
    own: Array
    reading: Array

    @classmethod
    def of(cls, load: Load, hardware: Hardware, traffic: Traffic) -> "Floor":
        """Of a load under the traffic."""
        mix, calibration = Mix.of(load, traffic, not traffic.disaggregated), hardware.calibrated(traffic.engine)
        each = (mix.width + mix.begins * mix.chunk) * mix.guessing
        known = 0.0 if traffic.precision in (calibration.products or {}) else 1.0
        return cls(
            (mix.width * load.head + each * load.dense) * known,
            each * load.experts * known,
            load.scores * (mix.width * mix.guessing),
            load.prompt_scores * mix.reading,
            load.activations * mix.tokens + calibration.coefficients.request * calibration.slowdown,
            (load.read_head + load.read_dense * mix.guessing) * known,
        )

    def take(self, index: Any) -> "Floor":
        """The shapes `index`."""
        return Floor(*(getattr(self, name)[index] for name in self.__slots__))

    def bounds(
        self, load: Load, layout: Layout, hardware: Hardware, traffic: Traffic, most: Array
    ) -> tuple[Array, Array]:
        """The batch up to `most` that limits on latency may allow, and device-seconds per output token that no smaller
        one goes below; both (n,)."""
        mix = Mix.of(load, traffic, not traffic.disaggregated)
        # A step that stands for several, as a prompt has more chunks than its answer has tokens, is no token's time.
        steps = max(mix.begins, 1.0) * (1 + 1e-9)
        limit = min((value for value in (traffic.tpot, traffic.ttft) if value is not None), default=math.inf)
        lines = list(self._lines(load, layout, hardware, traffic))
        for fixed, linear in lines if math.isfinite(limit) else ():
            # Tokens of b requests come after their mean step less a b-th of prompts: at least (b - 1) / b of it.
            within = limit * mix.produced * layout.gpus
            with np.errstate(divide="ignore", invalid="ignore"):
                allowed = np.floor((within * MANY / (MANY - 1) - fixed) / linear * (1 + 1e-9))
            most = np.where(fixed > within * steps, 0.0, np.fmin(most, np.maximum(allowed, MANY)))
        batch = np.maximum(most, 1.0)
        least = lines[0][1] + lines[0][0] / batch
        for fixed, linear in lines[1:]:
            np.maximum(least, linear + fixed / batch, out=least)
        return most, least / mix.produced

    def _lines(self, load: Load, layout: Layout, hardware: Hardware, traffic: Traffic) -> Iterator[tuple[Array, Array]]:
        """Device-seconds of a step and of each of its tokens, lower bounds of every batch (n,)."""
        mix, calibration = Mix.of(load, traffic, not traffic.disaggregated), hardware.calibrated(traffic.engine)
        waiting, moved = communication(load, layout, hardware, calibration)
        g, copies = layout.gpus, layout.gpus / layout.ranks
        linear = np.maximum(self.scores, load.read_kv * (layout.kv_share(load) * copies * mix.guessing))
        linear += self.prompts
        linear += self.experts
        if layout.overlapped:
            linear += self.own * copies
            fixed = twice(load, calibration.coefficients.step * calibration.slowdown) * (mix.steps * g)
            yield waiting * (2 * mix.steps * g), moved * (mix.tokens * copies)
        else:
            linear += (self.own + moved * mix.tokens) * copies
            fixed = (load.fixed + waiting) * (mix.steps * g)
        yield fixed, linear + self.matrices
        yield fixed + self.reading * layout.ranks, linear
