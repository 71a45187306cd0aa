"""Laws, ids, fitted laws and files as predictors, each distinct one once, with its weight."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.fitting import FittedLaw
from moelab.fitting.carried_notes import carried_notes
from moelab.fitting.table_units import units_of_fit
from moelab.laws import Law, get_law
from moelab.planning.predictors import Predictor


def predictors_of(
    laws: Sequence[Any], weights: Sequence[float] | None = None, extrapolate: bool = False
) -> list[Predictor]:
    """Laws, ids of laws and fitted laws as predictors, each distinct one once.

    Without `weights`, a fit's weight is the inverse square of its held-out error, and 0 without such an error. Where
    no fit has one, all weights are equal. Raises InputError for laws that predict no loss or have no coefficients.
    """
    if isinstance(laws, str | Law | FittedLaw | Predictor):
        laws = [laws]
    if not laws:
        raise InputError("law: at least one law is needed to rank designs")
    if weights is not None and (len(weights) != len(laws) or min(weights) < 0 or sum(weights) <= 0):
        raise InputError(f"weights: expected {len(laws)} non-negative numbers, one per law, not all zero")
    predictors: dict[Any, Predictor] = {}
    for index, (law, weight) in enumerate(zip(laws, weights or _held_out_weights(laws), strict=True)):
        predictor = _predictor(law)
        same = _identity(predictor)
        if same in predictors:  # named twice, as by `--law all --law ID`
            if weights is not None:
                predictors[same] = replace(predictors[same], weight=predictors[same].weight + float(weight))
            continue
        taken = {other.id for other in predictors.values()}
        name = predictor.id if predictor.id not in taken else f"{predictor.id}#{index + 1}"
        predictors[same] = replace(predictor, id=name, weight=float(weight), extrapolate=extrapolate)
    return list(predictors.values())


def _identity(predictor: Predictor) -> tuple[Any, ...]:
    """Equal for predictors with equal predictions: law, coefficients (to ten digits), runs."""
    values = tuple(f"{name}={value:.10g}" for name, value in sorted(predictor.coefficients.items()))
    return predictor.law.id, values, predictor.published, predictor.runs


def _held_out_weights(laws: Sequence[Any]) -> list[float]:
    scores = [law.holdout if isinstance(law, FittedLaw) else None for law in laws]
    if not any(scores):
        return [1.0] * len(laws)
    return [0.0 if score is None else 1.0 / max(score.mean_abs_rel, 1e-6) ** 2 for score in scores]


def _predictor(law: Any) -> Predictor:
    if isinstance(law, str):
        law = get_law(law)
    if isinstance(law, Predictor):
        return law
    if isinstance(law, Law):
        if law.kind != "loss":
            raise InputError(f"law: {law.id} predicts leverage over a dense law, not loss, so it cannot rank designs")
        if law.published is None:
            raise InputError(
                f"law: {law.id} has no published coefficients ({law.unpublished}); fit it and give the file"
            )
        return Predictor(id=law.id, law=law, coefficients=law.published, ranges=law.ranges)
    if not isinstance(law, FittedLaw):
        raise InputError(f"law: expected a law, its id, or a fitted law, got {type(law).__name__}")
    if law.law.kind != "loss":
        raise InputError(f"law: {law.law.id} predicts leverage over a dense law, not loss, so it cannot rank designs")
    units = tuple(finding.text for finding in units_of_fit(law.law, law.ranges, law.measured))
    return Predictor(
        id=law.law.id,
        law=law.law,
        coefficients=law.coefficients,
        draws=dict(zip(law.law.coefficients, law.draws.T, strict=True)) if len(law.draws) else {},
        ranges=law.ranges,
        published=False,
        runs=sha256(np.sort(law.measured).tobytes()).hexdigest()[:16],
        widening=law.widening,
        noise=law.residual_spread,
        most_flops=None if units else law.most_flops,
        unit_notes=units,
        fit_notes=tuple(carried_notes(law.law.id, law.law, law.kinds, law.holdout)),
        prior=law.prior,
    )
