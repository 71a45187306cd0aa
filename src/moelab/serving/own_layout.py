"""The layout of a design, made from that of a similar one: as many pieces as its own layers allow, and smaller
micro-batches or more recomputation where it needs more memory than the other did."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.layout import RECOMPUTATIONS, LayoutSizes
from moelab.architecture.shape import Shape
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.serving.training_calibration import TrainingCalibration
from moelab.serving.training_layout import (
    MICRO_BATCHES,
    USABLE,
    ChosenLayouts,
    Cluster,
    choose_layouts,
    pieces_of,
    splits,
)

Integers = NDArray[np.int64]


def own_layouts(
    shape: Shape, similar: ChosenLayouts, cluster: Cluster, calibration: TrainingCalibration
) -> ChosenLayouts:
    """Layouts of n designs, from those of similar designs (n,); nothing fits where nothing fitted the similar one.

    The first that fits is taken of the similar design's micro-batch or 1, at its recomputation, then at the next ones;
    where none does, the layout that is the fastest for this design by itself. Of `seconds` it only matters where they
    are finite: they are those of the similar design.
    """
    layout = replace(similar.layout, vp=pieces_of(shape, similar.layout.pp))
    micro_batch, recompute = similar.micro_batch.copy(), similar.recompute.copy()
    fits, splitting = ~np.isfinite(similar.seconds), splits(shape, layout)
    for more in range(len(RECOMPUTATIONS)):
        for most in sorted(MICRO_BATCHES, reverse=True):
            left = np.flatnonzero(splitting & ~fits)
            if not len(left):
                break
            size = np.minimum(similar.micro_batch[left], most)
            level = np.minimum(similar.recompute[left] + more, len(RECOMPUTATIONS) - 1)
            enough = _fits(shape.take(left), layout.take(left), size, level, cluster)
            taken = left[enough]
            micro_batch[taken], recompute[taken], fits[taken] = size[enough], level[enough], True
    found = ChosenLayouts(seconds=similar.seconds, layout=layout, micro_batch=micro_batch, recompute=recompute)
    left = np.flatnonzero(~fits)
    return found.put(left, choose_layouts(shape.take(left), cluster, calibration)) if len(left) else found


def _fits(
    shape: Shape, layout: LayoutSizes, micro_batch: Integers, recompute: Integers, cluster: Cluster
) -> NDArray[np.bool_]:
    """Whether each design has room on its devices (n,)."""
    need = np.full(len(recompute), np.inf)
    for level in np.unique(recompute):
        some = np.flatnonzero(recompute == level)
        step = TrainingStep(
            micro_batch=micro_batch[some], seq_len=cluster.seq_len, recompute=RECOMPUTATIONS[int(level)]
        )
        need[some] = device_memory(shape.take(some), layout.take(some), step).total
    return need <= USABLE * cluster.device.memory
