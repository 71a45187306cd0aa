"""Who decides: laws that vote, alone or as the average of fits to the same runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.laws import Conversion
from moelab.laws.design import Design
from moelab.planning.feasible import FeasibleSet
from moelab.planning.predictors import Predictor, outside_range

Array = NDArray[Any]

SAMPLE = 20_000
"""Designs on which it is decided who votes."""


@dataclass(frozen=True)
class Member:
    """One vote: a published law, or all fits to the same runs, whose losses may be averaged."""

    predictors: tuple[Predictor, ...]

    @property
    def fitted(self) -> bool:
        """Whether this member has coefficients from runs of the user's own."""
        return not self.predictors[0].published

    @cached_property
    def weights(self) -> Array:
        """Weights of the laws, summing to 1; equal where none has a weight of its own."""
        weights = np.array([predictor.weight for predictor in self.predictors])
        return np.asarray(weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights)))

    def mean(self, losses: dict[str, Array]) -> Array:
        """The weighted mean over this member's laws, NaN where one that has a weight does not speak."""
        return np.asarray(sum(w * losses[v.id] for w, v in zip(self.weights, self.predictors, strict=True) if w))

    def loss(self, design: Design) -> Array:
        """Predicted loss of a design or lattice."""
        return self.mean({predictor.id: predictor.loss(predictor.read(design)) for predictor in self.predictors})


def choose_ensemble(predictors: Sequence[Predictor], feasible: FeasibleSet) -> tuple[Member, ...]:
    """Who votes: one's own fits before published laws, and only laws that can weigh what is being decided.

    That takes tokens among the variables (else size costs nothing) and, where the space holds MoE, words about most of
    its MoE designs: a law of a slice (dense, or one expansion) would rate the best of its slice as perfect. An average
    over fits needs laws that hold both kinds on one surface. Laws that only fall short of this vote if no other can.
    """
    some = feasible if len(feasible) <= SAMPLE else feasible.take(draw(len(feasible), SAMPLE))
    readings = {predictor.id: predictor.read(some.design) for predictor in predictors}
    covering = [predictor for predictor in predictors if readings[predictor.id].covered.any()]
    if not covering:
        raise InputError("law: none of the laws can speak about any design that fits: " + _reasons(readings))
    moe = some.lattice.is_moe
    fitted = [predictor for predictor in covering if not predictor.published]
    able = fitted or covering
    able = [predictor for predictor in able if "tokens" in predictor.law.variables] or able
    if moe.any():
        described = {v.id: (readings[v.id].covered | outside_range(readings[v.id]))[moe].mean() for v in able}
        wide = [predictor for predictor in able if described[predictor.id] > 0.5]
        able = wide or [predictor for predictor in able if readings[predictor.id].covered[moe].any()] or able
    if fitted and not moe.all():
        able = [predictor for predictor in able if predictor.compares_dense_with_moe] or able
    groups: dict[str, list[Predictor]] = {}
    for predictor in able:
        groups.setdefault(predictor.runs or predictor.id, []).append(predictor)
    return tuple(Member(tuple(group)) for group in groups.values())


def _reasons(readings: dict[str, Conversion]) -> str:
    """For each law, its commonest reason."""
    parts = []
    for name, reading in readings.items():
        codes, counts = np.unique(reading.reason, return_counts=True)
        code = int(codes[np.argmax(counts)])
        parts.append(f"{name}: {reading.reasons[code - 1] if code else 'its formula gives no number'}")
    return "; ".join(parts)


def draw(n: int, count: int) -> Array:
    """`count` of n positions, the same ones every time, ascending."""
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False))
