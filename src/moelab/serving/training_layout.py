"""A reasonable layout for every design where none is given: it fits the devices and is the fastest predicted.

Tried are tensor parallelism inside a node, pipeline stages and expert parallelism over powers of two, micro-batches of
1 and 4 and each recomputation. Where a count of devices divides badly, some stay idle: 512 of 520 train.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.layers import Numbers
from moelab.architecture.layout import RECOMPUTATIONS, Layout, LayoutSizes
from moelab.architecture.shape import Shape
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.serving.hardware import Hardware
from moelab.serving.training_calibration import TrainingCalibration
from moelab.serving.training_time import TrainingSetup

Array = NDArray[np.float64]

SPLITS = ((1, 1), (1, 4), (2, 4), (1, 16), (4, 8), (8, 16))
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
AT_ONCE = 1 << 16
"""Layouts times designs whose memory and time are computed together."""


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


def choose_layouts(shape: Shape, cluster: Cluster, calibration: TrainingCalibration) -> ChosenLayouts:
    """The layout of each of n designs, whose sizes broadcast to (n,)."""
    n = np.broadcast(*(np.asarray(getattr(shape, name)) for name in Shape.__dataclass_fields__)).size
    chosen, tried = _Choice(n), list(_all_layouts(shape, cluster))
    together = max(1, AT_ONCE // max(n, 1))
    for start in range(0, len(tried), together):
        _try(chosen, shape, cluster, tried[start : start + together], calibration)
    layout = LayoutSizes(**{name: chosen.sizes[i] for i, name in enumerate(Layout.model_fields)})
    return ChosenLayouts(
        seconds=chosen.seconds, layout=layout, micro_batch=chosen.micro_batch, recompute=chosen.recompute
    )


def _all_layouts(shape: Shape, cluster: Cluster) -> Iterator[tuple[LayoutSizes, int]]:
    """Every layout that is tried, with a micro-batch; of equally fast ones the first is taken."""
    for tp, pp in SPLITS:
        if tp <= cluster.device.node:
            for dp in data_parallel(cluster.gpus // (tp * pp)):
                yield from _layouts(shape, tp, pp, dp)


class _Choice:
    """The best so far of n designs."""

    def __init__(self, n: int) -> None:
        self.seconds = np.full(n, np.inf)
        self.sizes = np.ones((len(Layout.model_fields), n), np.int64)
        self.micro_batch, self.recompute = np.ones(n, np.int64), np.zeros(n, np.int64)


def data_parallel(most: int) -> list[int]:
    """Copies of the model that are tried where there are devices for `most`, the largest first."""
    return sorted({most // multiple * multiple for multiple in MULTIPLES} - {0}, reverse=True)


def _layouts(shape: Shape, tp: int, pp: int, dp: int) -> Iterator[tuple[LayoutSizes, int]]:
    """Layouts of one split of the layers over so many copies, with a micro-batch."""
    pieces = np.clip(np.asarray(shape.n_layers) // pp, 1, MOST_PIECES) if pp > 1 else 1
    groups = sorted({min(group, tp * dp) for group in EXPERT_GROUPS}) if np.any(shape.n_experts) else [1]
    for group in groups:
        ep = _dividing(np.asarray(shape.n_experts), tp * dp, group)
        for micro_batch in MICRO_BATCHES:
            yield LayoutSizes(tp=tp, pp=pp, ep=ep, dp=dp, vp=pieces, zero=3 if pp == 1 else 1), micro_batch


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
    chosen: _Choice, shape: Shape, cluster: Cluster, tried: Sequence[tuple[LayoutSizes, int]],
    calibration: TrainingCalibration,
) -> None:  # fmt: skip
    """Take the fastest of these layouts for the designs that it fits and that have none as fast."""
    n = len(chosen.seconds)
    names = list(Layout.model_fields)
    sizes = np.stack([[np.broadcast_to(getattr(layout, name), n) for name in names] for layout, _ in tried], 1)
    layout = LayoutSizes(**dict(zip(names, sizes.astype(np.int64), strict=True)))  # (layouts, n) each
    micro_batch = np.array([[size] for _, size in tried])
    step = TrainingStep(micro_batch=micro_batch, seq_len=cluster.seq_len)
    divides = np.asarray((shape.n_heads % layout.tp == 0) & (shape.n_layers >= layout.pp) & (layout.ep > 0))
    layout = replace(layout, ep=np.maximum(layout.ep, 1))
    level = _least_recomputed(shape, layout, step, USABLE * cluster.device.memory)
    seconds = calibration.seconds(shape, cluster.setup(layout, micro_batch, forwards(level)))
    seconds = seconds * (cluster.gpus / layout.devices)
    seconds = np.where(divides & (level < len(RECOMPUTATIONS)), seconds, np.inf)
    first, design = np.argmin(seconds, 0), np.arange(n)
    best = np.asarray(seconds)[first, design]
    better = np.flatnonzero(best < chosen.seconds)
    first = first[better]
    chosen.seconds[better], chosen.recompute[better] = best[better], level[first, better]
    chosen.micro_batch[better] = micro_batch[first, 0]
    for i, name in enumerate(names):
        chosen.sizes[i, better] = np.asarray(getattr(layout, name))[first, better]


def _least_recomputed(shape: Shape, layout: LayoutSizes, step: TrainingStep, room: float) -> NDArray[np.int64]:
    """Positions in RECOMPUTATIONS (layouts, n) of the least that fits into `room` bytes; their number where none."""
    level = np.full(np.shape(layout.dp), len(RECOMPUTATIONS))
    for number in reversed(range(len(RECOMPUTATIONS))):
        needed = device_memory(shape, layout, replace(step, recompute=RECOMPUTATIONS[number])).total
        level = np.where(needed <= room, number, level)
    return level


def forwards(recompute: NDArray[np.int64]) -> Array:
    """Forward passes of the layers by the position of the recomputation; a selective one repeats no product."""
    return np.where(recompute == RECOMPUTATIONS.index("full"), 2.0, 1.0)
