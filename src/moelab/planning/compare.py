"""Compares designs: parameters, FLOPs, tokens, epochs, memory, serving, and the loss predicted by each law."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.architecture.memory import kv_bytes, training_memory, weight_bytes
from moelab.errors import InputError
from moelab.laws import Design
from moelab.planning.baselines import Part
from moelab.planning.budget import Serving
from moelab.planning.candidate import Prediction
from moelab.planning.predictors import Predictor, predictors_of
from moelab.planning.sanity import MEANINGLESS
from moelab.quantities import format_number
from moelab.serving import serve_one

EQUAL = ("params", "flops", "tokens", "unique_tokens")
"""Quantities that `check_equal` compares."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One design of a comparison."""

    name: str
    config: ModelConfig
    params_total: int
    params_active: int
    activation_rate: float
    tokens: int
    unique_tokens: int
    epochs: float
    flops_per_token: float
    train_flops: float
    weight_bytes: float
    kv_bytes: float
    training_bytes: float
    serving: dict[str, Any] | None
    loss: dict[str, Prediction]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("config", "loss")}
        losses = {law: prediction.to_dict() for law, prediction in self.loss.items()}
        return plain | {"config": self.config.to_dict(), "loss": losses}


@dataclass(frozen=True, kw_only=True)
class DesignComparison:
    """Two or more designs. `differences` holds, by law, loss of each later side minus that of the first, with p10 and
    p90 over the draws, and the probability that the first is better."""

    sides: list[Side]
    differences: list[dict[str, dict[str, float | None]]]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `moelab compare --json`."""
        return {
            "designs": [side.to_dict() for side in self.sides],
            "loss_minus_first": self.differences,
            "warnings": self.warnings,
        }


def compare_designs(
    parts: Sequence[tuple[str, Part]],
    laws: Sequence[Any],
    *,
    seq_len: int = 4096,
    serving: Serving | None = None,
    precision: str = "bf16",
    extrapolate: bool = False,
) -> DesignComparison:
    """Compare named designs, each with its tokens and unique tokens, under every law."""
    predictors = predictors_of(laws, extrapolate=extrapolate)
    designs = [Design.of(model, tokens, seq_len, min(unique, tokens)) for _, (model, tokens, unique) in parts]
    sides = [
        _side(name, part, design, predictors, seq_len, serving, precision)
        for (name, part), design in zip(parts, designs, strict=True)
    ]
    differences = [_differences(designs[0], other, predictors) for other in designs[1:]]
    return DesignComparison(sides=sides, differences=differences, warnings=_warnings(sides, predictors))


def _warnings(sides: Sequence[Side], predictors: Sequence[Predictor]) -> list[str]:
    """Predicted losses worse than guessing's, or a factor of a thousand outside the law's runs."""
    lines = []
    for side in sides:
        size = side.config.vocab_size
        guess = {predictor.id: predictor.guessing_loss(size) for predictor in predictors}
        covered = {law: p for law, p in side.loss.items() if p.value is not None}
        worse = [law for law, p in covered.items() if p.value is not None and p.value > guess[law]]
        far = [law for law, p in covered.items() if law not in worse and (p.extrapolation or 0.0) > MEANINGLESS]
        if worse:
            lines.append(
                f"{side.name}: meaningless by {', '.join(worse)}: the loss is worse than guessing, ln(vocab_size), on "
                f"{format_number(side.tokens)} tokens, {format_number(side.unique_tokens)} of them distinct"
            )
        if far:
            lines.append(f"{side.name}: {', '.join(far)} a factor of {10**MEANINGLESS:,.0f} or more out of range")
    return lines


def _side(
    name: str,
    part: Part,
    design: Design,
    predictors: Sequence[Predictor],
    seq_len: int,
    serving: Serving | None,
    precision: str,
) -> Side:
    model, tokens, unique = part
    params, flops = count_parameters(model), count_flops(model, seq_len).train
    served = None if serving is None else serve_one(model, serving.traffic, serving.device, serving.price)
    return Side(
        name=name,
        config=model,
        params_total=params.params_total,
        params_active=params.params_active,
        activation_rate=params.activation_rate,
        tokens=tokens,
        unique_tokens=min(unique, tokens),
        epochs=tokens / min(unique, tokens),
        flops_per_token=flops,
        train_flops=float(flops) * tokens,
        weight_bytes=weight_bytes(model, precision),
        kv_bytes=kv_bytes(model, seq_len, precision),
        training_bytes=training_memory(model).total,
        serving=served,
        loss={predictor.id: _prediction(predictor, design) for predictor in predictors},
    )


def _prediction(predictor: Predictor, design: Design) -> Prediction:
    reading = predictor.read(design)
    loss = float(np.atleast_1d(predictor.loss(reading))[0])
    if not np.isfinite(loss):
        return Prediction(not_covered=reading.why() or "its formula gives no finite loss")
    low, high = predictor.interval(reading, loss)
    distance = float(np.atleast_1d(predictor.extrapolation(reading))[0])
    return Prediction(value=loss, low=low, high=high, extrapolation=None if np.isnan(distance) else distance)


def _differences(first: Design, other: Design, predictors: Sequence[Predictor]) -> dict[str, dict[str, float | None]]:
    """By law: loss of `other` minus that of `first`, draw by draw where there are draws."""
    found: dict[str, dict[str, float | None]] = {}
    for predictor in predictors:
        mine, theirs = predictor.read(first), predictor.read(other)
        value = float(np.atleast_1d(predictor.loss(theirs))[0] - np.atleast_1d(predictor.loss(mine))[0])
        if not np.isfinite(value):
            continue
        entry: dict[str, float | None] = {"value": value, "low": None, "high": None, "p_first_better": None}
        if predictor.n_draws:
            gaps = predictor.formula_draws(theirs)[:, 0] - predictor.formula_draws(mine)[:, 0]
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


def check_equal(sides: Sequence[Side], wanted: Sequence[str], tolerance: float = 0.01, given: int = 2) -> None:
    """Raises InputError naming the first of the wanted quantities in which the designs differ by more than 1 %.

    `given` is the number of designs that the user named; the others were derived.
    """
    hint = (
        "leave it out, or give one design to get a dense baseline of equal size"
        if given > 1
        else "leave it out; the dense baseline of one design can equal it in params, flops and unique_tokens"
    )
    columns: dict[str, list[float]] = {
        "params": [side.params_total for side in sides],
        "flops": [side.train_flops for side in sides],
        "tokens": [side.tokens for side in sides],
        "unique_tokens": [side.unique_tokens for side in sides],
    }
    for name in wanted:
        low, high = min(columns[name]), max(columns[name])
        if high > low * (1 + tolerance):
            raise InputError(
                f"--equal {name}: the designs differ, {format_number(low, 4)} against {format_number(high, 4)}; {hint}"
            )
