"""Every law's loss for all designs, computed a chunk of designs at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.planning.ensemble import Member
from moelab.planning.feasible import FeasibleSet
from moelab.planning.predictors import Predictor, excluded_by_range

Array = NDArray[Any]


@dataclass(frozen=True)
class LawResult:
    """One law's best design (-1 where it covers none) with its loss.

    `losses` (n,) are those of all designs, NaN where the law does not apply; only laws of the ensemble keep them.
    `outside` is the formula's least loss over designs that only the fitted range, or the window of tokens, excludes.
    """

    best: int
    loss: float
    outside: float
    losses: Array | None = None


def evaluate_laws(
    feasible: FeasibleSet, predictors: Sequence[Predictor], ensemble: Sequence[Member]
) -> tuple[dict[str, LawResult], dict[str, Array]]:
    """Every law's result for all designs, and the ensemble's variables, computed a chunk of designs at a time."""
    n, moe = len(feasible), feasible.lattice.is_moe
    members = {predictor.id for member in ensemble for predictor in member.predictors}
    losses = {name: np.full(n, np.nan) for name in members}
    best = {predictor.id: (-1, np.inf) for predictor in predictors}
    outside = {predictor.id: np.inf for predictor in predictors}
    inputs: dict[str, Array] = {}
    for chunk in feasible.lattice.chunks():
        part = feasible.take(chunk)
        for predictor in predictors:
            if not predictor.law.covers_moe and moe[chunk].all():
                continue
            reading = predictor.read(part.design)
            beyond = excluded_by_range(reading) if predictor.id in members else np.zeros(len(part), bool)
            formula = np.where(reading.covered | beyond, predictor.formula(reading, reading.covered | beyond), np.nan)
            loss = np.where(reading.covered & np.isfinite(formula), formula, np.inf)
            lowest = int(loss.argmin())
            if loss[lowest] < best[predictor.id][1]:
                best[predictor.id] = (chunk.start + lowest, float(loss[lowest]))
            if predictor.id not in members:
                continue
            losses[predictor.id][chunk] = np.where(np.isinf(loss), np.nan, loss)
            outside[predictor.id] = min(outside[predictor.id], float(np.min(formula, where=beyond, initial=np.inf)))
            for name in predictor.law.variables:
                if name not in inputs:
                    inputs[name] = np.empty(n)
                inputs[name][chunk] = reading.variables[name]
    law_results = {v.id: LawResult(*best[v.id], outside[v.id], losses.get(v.id)) for v in predictors}
    return law_results, inputs
