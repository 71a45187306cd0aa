"""A reasonable layout for every design where none is given: it fits the devices and is the fastest predicted.

Tried are tensor parallelism inside a node, pipeline stages and expert parallelism over powers of two, micro-batches of
1 and 4 and each recomputation. Where a count of devices divides badly, some stay idle: 512 of 520 train.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.layers import Numbers
from moelab.architecture.layout import RECOMPUTATIONS, Layout, LayoutSizes
from moelab.architecture.shape import Integers, Shape
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.serving.hardware import Hardware
from moelab.serving.training_calibration import TrainingCalibration
from moelab.serving.training_time import TrainingSetup

Array = NDArray[np.float64]

SPLITS = ((1, 1), (1, 4), (2, 4), (1, 8), (2, 8), (1, 16), (2, 16), (4, 8), (8, 16))
"""Tensor and pipeline parallelism that are tried."""
EXPERT_GROUPS = (8, 64)
"""Devices over which experts are split: those of a node, or of the largest scale-up domains."""
MICRO_BATCHES = (1, 4)
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
"""Data parallelism is rounded down to these: experts are split over powers of two, which odd counts do not divide."""
SMALL_STAGE = 24
"""Devices of a pipeline stage below which experts are split over any power of two that divides it; from there on over
whole nodes."""
USABLE = 0.92
"""Share of a device's memory that training may fill: the driver, exchange buffers and fragments take the rest."""
MOST_PIECES = 4
"""Pieces of the model that one pipeline stage holds at most."""
TOGETHER = 1 << 14
"""Layouts times designs that are tried together: many small steps of NumPy would take longer than what they compute."""
_SIZES = tuple(Layout.model_fields)
Tried = tuple[int, int, int, int, int]
"""Tensor, pipeline and data parallelism, the devices over which experts are split, and the micro-batch."""


@dataclass(frozen=True, kw_only=True)
class ChosenLayouts:
    """For each design (n,): device-seconds per token, those of idle devices included (infinite where nothing fits),
    layout, micro-batch, and the position of its recomputation in RECOMPUTATIONS."""

    seconds: Array
    layout: LayoutSizes
    micro_batch: NDArray[np.int64]
    recompute: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """`gpus` devices that train in steps of `batch_tokens` tokens, at least one sequence a device."""

    device: Hardware
    gpus: int
    precision: str
    seq_len: int
    batch_tokens: float

    def setup(self, layout: LayoutSizes, micro_batch: Numbers, forwards: Numbers = 1.0) -> TrainingSetup:
        """What trains on this layout."""
        return TrainingSetup(
            device=self.device, precision=self.precision, layout=layout, seq_len=self.seq_len, micro_batch=micro_batch,
            global_batch=max(self.batch_tokens / self.seq_len, self.gpus), forwards=forwards,
        )  # fmt: skip


def choose_layouts(
    shape: Shape, cluster: Cluster, calibration: TrainingCalibration, usable: float = USABLE
) -> ChosenLayouts:
    """The layout of each of n designs, whose sizes broadcast to (n,), within this share of a device's memory."""
    n = np.broadcast(*(np.asarray(getattr(shape, name)) for name in Shape.__dataclass_fields__)).size
    chosen, tried = _Choice(n), list(_tried(shape, cluster))
    step = max(TOGETHER // n, 1)
    for first in range(0, len(tried), step):
        layout, micro_batch = _layouts(shape, tried[first : first + step])
        _try(chosen, shape, cluster, layout, micro_batch, calibration, usable)
    layout = LayoutSizes(**{name: chosen.sizes[i] for i, name in enumerate(_SIZES)})
    return ChosenLayouts(
        seconds=chosen.seconds, layout=layout, micro_batch=chosen.micro_batch, recompute=chosen.recompute
    )


class _Choice:
    """The best so far of n designs."""

    def __init__(self, n: int) -> None:
        self.seconds = np.full(n, np.inf)
        self.sizes = np.ones((len(_SIZES), n), np.int64)
        self.micro_batch, self.recompute = np.ones(n, np.int64), np.zeros(n, np.int64)


def data_parallel(most: int) -> list[int]:
    """Copies of the model that are tried where there are devices for `most`, the largest first."""
    return sorted({most // multiple * multiple for multiple in MULTIPLES} - {0}, reverse=True)


def _tried(shape: Shape, cluster: Cluster) -> Iterator[Tried]:
    """Every layout that is tried."""
    for tp, pp in SPLITS:
        for dp in data_parallel(cluster.gpus // (tp * pp)) if tp <= cluster.device.node else []:
            groups = sorted({min(group, tp * dp) for group in EXPERT_GROUPS}) if np.any(shape.n_experts) else [1]
            yield from ((tp, pp, dp, group, micro_batch) for group in groups for micro_batch in MICRO_BATCHES)


def _layouts(shape: Shape, tried: list[Tried]) -> tuple[LayoutSizes, NDArray[np.int64]]:
    """These layouts (L, 1), sizes that follow the design (L, n), and the micro-batches (L, 1)."""
    tp, pp, dp, _, micro_batch = (np.array(column)[:, None] for column in zip(*tried, strict=True))
    n_experts = np.atleast_1d(shape.n_experts)
    ep = np.stack([_dividing(n_experts, tp * dp, group) for tp, _, dp, group, _ in tried])
    return LayoutSizes(tp=tp, pp=pp, ep=ep, dp=dp, vp=pieces_of(shape, pp), zero=np.where(pp == 1, 3, 1)), micro_batch


def pieces_of(shape: Shape, pp: Integers) -> NDArray[np.int64]:
    """Pieces of the model that each of `pp` stages holds: one without a pipeline, each of at least one layer."""
    return np.where(pp > 1, np.clip(np.asarray(shape.n_layers) // pp, 1, MOST_PIECES), 1)


def splits(shape: Shape, layout: LayoutSizes) -> NDArray[np.bool_]:
    """Whether tensor parallelism divides heads and widths, every stage has a layer, and experts can be split."""
    dense = np.asarray(shape.n_layers > shape.n_moe_layers) * shape.d_ff
    whole = [np.asarray(size) % layout.tp == 0 for size in (shape.n_heads, dense, shape.d_shared)]
    return np.asarray(
        np.logical_and.reduce(np.broadcast_arrays(*whole)) & (shape.n_layers >= layout.pp) & (layout.ep > 0)
    )


def _dividing(n_experts: NDArray[np.int64], stage: int, most: int) -> NDArray[np.int64]:
    """The largest power of two up to `most` that divides the experts and the devices of a stage; 1 where dense, 0 where
    a large stage holds no whole nodes: its devices beyond them stay idle."""
    powers = [p for p in (1 << k for k in range(most.bit_length())) if p <= most and stage % p == 0]
    best = np.ones_like(n_experts)
    for power in powers:
        best = np.where((n_experts > 0) & (n_experts % power == 0), power, best)
    whole = stage < SMALL_STAGE or stage % min(EXPERT_GROUPS) == 0
    return best if whole else np.where(n_experts > 0, 0, best)


def _try(
    chosen: _Choice, shape: Shape, cluster: Cluster, layout: LayoutSizes, micro_batch: NDArray[np.int64],
    calibration: TrainingCalibration, usable: float,
) -> None:  # fmt: skip
    """Take the fastest of these layouts for the designs that it fits and that have none as fast."""
    step, size = TrainingStep(micro_batch=micro_batch, seq_len=cluster.seq_len), (len(micro_batch), len(chosen.seconds))
    room = usable * cluster.device.memory
    divides = splits(shape, layout)
    layout = replace(layout, ep=np.maximum(layout.ep, 1))
    level = np.full(size, len(RECOMPUTATIONS))
    for number in reversed(range(len(RECOMPUTATIONS))):
        needed = device_memory(shape, layout, replace(step, recompute=RECOMPUTATIONS[number])).total
        level = np.where(divides & (needed <= room), number, level)
    seconds = calibration.seconds(shape, cluster.setup(layout, micro_batch, forwards(level)))
    seconds = seconds * (cluster.gpus / layout.devices)
    seconds = np.where(level < len(RECOMPUTATIONS), seconds, np.inf)
    best, design = seconds.argmin(0), np.arange(size[1])
    fastest = seconds[best, design]
    better = fastest < chosen.seconds
    best, design = best[better], design[better]
    chosen.seconds[better], chosen.recompute[better] = fastest[better], level[best, design]
    chosen.micro_batch[better] = micro_batch[best, 0]
    for i, name in enumerate(_SIZES):
        chosen.sizes[i, better] = np.broadcast_to(getattr(layout, name), size)[best, design]


def forwards(recompute: NDArray[np.int64]) -> Array:
    """Forward passes of the layers by the position of the recomputation; a selective one repeats no product."""
    return np.where(recompute == RECOMPUTATIONS.index("full"), 2.0, 1.0)
