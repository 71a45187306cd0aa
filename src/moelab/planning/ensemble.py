"""The ensemble that ranks designs: published laws, and averages of fits to the same runs."""

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
"""Designs on which the members of the ensemble are chosen."""


@dataclass(frozen=True)
class Member:
    """One member: a published law, or all fits to the same runs, whose losses may be averaged."""

    predictors: tuple[Predictor, ...]

    @property
    def fitted(self) -> bool:
        """Whether the coefficients were fitted to the user's own runs."""
        return not self.predictors[0].published

    @cached_property
    def weights(self) -> Array:
        """Weights of the laws, summing to 1; equal where all are 0."""
        weights = np.array([predictor.weight for predictor in self.predictors])
        return np.asarray(weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights)))

    def mean(self, losses: dict[str, Array]) -> Array:
        """The weighted mean over this member's laws, NaN where a law of non-zero weight does not apply."""
        return np.asarray(sum(w * losses[v.id] for w, v in zip(self.weights, self.predictors, strict=True) if w))

    def loss(self, design: Design) -> Array:
        """Predicted loss of a design or lattice."""
        return self.mean({predictor.id: predictor.loss(predictor.read(design)) for predictor in self.predictors})


def choose_ensemble(predictors: Sequence[Predictor], feasible: FeasibleSet) -> tuple[Member, ...]:
    """The members of the ensemble: the user's own fits, else published laws.

    A member needs tokens among its variables, else size costs nothing. Where the space holds MoE, it must describe
    most of the MoE designs: a law of a slice (dense, or one expansion) would rate the best of its slice as optimal. An
    average over fits needs laws that cover both kinds on one surface. Laws without these properties become members
    only where no law has them. Raises InputError where no law applies to any design, and where fits alone are given of
    which none has tokens.
    """
    some = feasible if len(feasible) <= SAMPLE else feasible.take(draw(len(feasible), SAMPLE))
    readings = {predictor.id: predictor.read(some.design) for predictor in predictors}
    covering = [predictor for predictor in predictors if readings[predictor.id].covered.any()]
    if not covering:
        raise InputError("law: none of the laws applies to any design that fits: " + _reasons(readings))
    moe = some.lattice.is_moe
    fitted = [predictor for predictor in covering if not predictor.published]
    able = fitted or covering
    if fitted and not any("tokens" in predictor.law.variables for predictor in fitted):
        names = ", ".join(predictor.id for predictor in fitted)
        raise InputError(
            f"law: tokens are no variable of {names}, so a larger model would cost nothing; give a fit of a law with "
            "tokens"
        )
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
    """For each law, the most frequent reason for which it does not apply."""
    parts = []
    for name, reading in readings.items():
        codes, counts = np.unique(reading.reason, return_counts=True)
        code = int(codes[np.argmax(counts)])
        parts.append(f"{name}: {reading.reasons[code - 1] if code else 'its formula gives no finite loss'}")
    return "; ".join(parts)


def draw(n: int, count: int) -> Array:
    """A fixed random sample of `count` of n positions, ascending."""
    return np.sort(np.random.default_rng(0).choice(n, count, replace=False))
