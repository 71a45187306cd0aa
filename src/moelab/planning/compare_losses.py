"""The losses of a comparison: each by every law, the differences between designs, and what is meaningless."""

from collections.abc import Sequence

import numpy as np

from moelab.fitting.implausible import meaningless
from moelab.laws import Design
from moelab.planning.candidate import Prediction
from moelab.planning.predictors import Predictor
from moelab.planning.sides import Side
from moelab.quantities import format_number


def loss_prediction(predictor: Predictor, design: Design) -> Prediction:
    """The loss of a design by one law, with its interval and its distance outside the fitted range."""
    reading = predictor.read(design)
    loss = float(np.atleast_1d(predictor.loss(reading))[0])
    if not np.isfinite(loss):
        return Prediction(not_covered=reading.why() or "its formula gives no finite loss")
    low, high = predictor.interval(reading, float(np.max(design.train_flops)), loss)
    distance = float(np.atleast_1d(predictor.extrapolation(reading))[0])
    return Prediction(value=loss, low=low, high=high, extrapolation=None if np.isnan(distance) else distance)


def loss_differences(
    first: Design, other: Design, predictors: Sequence[Predictor]
) -> dict[str, dict[str, float | None]]:
    """By law: loss of `other` minus that of `first`, draw by draw where there are draws."""
    found: dict[str, dict[str, float | None]] = {}
    for predictor in predictors:
        mine, theirs = predictor.read(first), predictor.read(other)
        value = float(np.atleast_1d(predictor.loss(theirs))[0] - np.atleast_1d(predictor.loss(mine))[0])
        if not np.isfinite(value):
            continue
        entry: dict[str, float | None] = {"value": value, "low": None, "high": None, "p_first_better": None}
        if predictor.n_draws:
            gaps = predictor.formula_draws(theirs, other.train_flops)[:, 0]
            gaps = gaps - predictor.formula_draws(mine, first.train_flops)[:, 0]
            gaps = gaps[np.isfinite(gaps)]
            if len(gaps):
                low, high = np.quantile(gaps, (0.1, 0.9))
                entry |= {
                    "low": min(float(low), value),
                    "high": max(float(high), value),
                    "p_first_better": float((gaps > 0).mean()),
                }
        found[predictor.id] = entry
    return found


def loss_warnings(sides: Sequence[Side], predictors: Sequence[Predictor]) -> list[str]:
    """Predicted losses worse than guessing's, or a factor of a thousand outside the law's runs."""
    lines = []
    for side in sides:
        losses = {law: p.value for law, p in side.loss.items() if p.value is not None}
        guesses = {predictor.id: predictor.guessing_loss(side.config.vocab_size) for predictor in predictors}
        where = f", on {format_number(side.tokens)} tokens, {format_number(side.unique_tokens)} of them distinct"
        found = meaningless(losses, guesses, {law: p.extrapolation for law, p in side.loss.items()}, where)
        lines += [f"{side.name}: {line}" for line in found]
    return lines
