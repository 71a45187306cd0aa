"""Learning rate and batch of a design by every published rule that applies, each with its distance from its runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moelab.fitting.rules import FittedRule
from moelab.laws import get_rule
from moelab.laws.design import Design
from moelab.notebook import Shown, short_repr

FOR_MOE = ("tian2025-moe", "ludziejewski2025-lr", "steplaw2025")
FOR_DENSE = ("steplaw2025", "deepseek2024", "tian2025-dense")
"""Rules in the order of preference: those found on models of the design's kind first."""

MOST_RATE = 0.02
"""Learning rate above which no rule is preferred: four times the largest that any published rule gives inside its own
runs (Step Law, 0.005 at 0.21B parameters and 100B tokens)."""

FAR, NEAR = 2.0, 1.0
"""log10 distances from its runs: a rule beyond the first yields to one within the second."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Rate(Shown):
    """What one rule gives. `batch_tokens` is None where the rule has none. `distance` is the largest log10 distance of
    its inputs outside `ranges`, the runs it was found on; None where the range of some input is unknown."""

    rule: str
    title: str
    learning_rate: float
    batch_tokens: int | None
    inputs: dict[str, float]
    ranges: dict[str, tuple[float, float] | None]
    distance: float | None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """p10 and p90 by quantity, of a rule fitted to a sweep."""

    def __repr__(self) -> str:
        return short_repr(self, rule=self.rule, learning_rate=self.learning_rate, batch_tokens=self.batch_tokens)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rule": self.rule,
            "title": self.title,
            "learning_rate": self.learning_rate,
            "batch_tokens": self.batch_tokens,
            "inputs": self.inputs,
            "ranges": {name: None if ends is None else list(ends) for name, ends in self.ranges.items()},
            "distance": self.distance,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
        }


def rates_of(design: Design, fitted: Sequence[FittedRule] = ()) -> list[Rate]:
    """The rates of a single design, (1,) arrays, the preferred rule first: those fitted to one's own sweeps lead.

    For a MoE design rules found on MoE models come first; the Step Law counts all parameters, as its own MoE runs did.
    Rules that give no batch stand beside the batch of the first that does. A rate above `MOST_RATE`, and one from far
    outside its runs where another rule is near its own, come last.
    """
    moe = not bool(np.ravel(design.dense)[0])
    published = [_rate(name, design) for name in (FOR_MOE if moe else FOR_DENSE)]
    batch = next(rate.batch_tokens for rate in published if rate.batch_tokens is not None)
    rates = [*(_fitted_rate(rule, design, batch) for rule in fitted if "learning_rate" in rule.fits), *published]
    return sorted(rates, key=lambda rate: _last(rate, rates))


def _last(rate: Rate, rates: Sequence[Rate]) -> int:
    """0 for a rate that keeps its place, 1 for one from far outside its runs, 2 for one that is too large."""
    if rate.learning_rate > MOST_RATE:
        return 2
    near = any(
        other.learning_rate <= MOST_RATE and other.distance is not None and other.distance <= NEAR for other in rates
    )
    return int(near and rate.distance is not None and rate.distance > FAR)


def _fitted_rate(rule: FittedRule, design: Design, batch: int) -> Rate:
    """A fitted rule's rate; where its form reads the batch, that is the published rules' first. Compute
    is counted as in tables of runs."""
    compute = float(np.ravel(design.in_tables("train_flops"))[0])
    given = {**_inputs(design), "train_flops": compute, "batch_tokens": float(batch)}
    inputs = {name: given[name] for fitted in rule.fits.values() for name in fitted.law.variables}
    found = rule.predict(inputs)
    own = found.get("batch_tokens")
    distances = [one["extrapolation"] for one in found.values()]
    ends = {name: (one["low"], one["high"]) for name, one in found.items() if np.isfinite(one["low"])}
    return Rate(
        rule=f"{rule.rule} (fitted)",
        title=f"{rule.rule}, fitted to a sweep",
        learning_rate=found["learning_rate"]["value"],
        batch_tokens=None if own is None else max(1, round(own["value"])),
        inputs=inputs,
        ranges={name: ends for fitted in rule.fits.values() for name, ends in fitted.ranges.items()},
        distance=None if np.isnan(distances).any() else max(distances),
        intervals=ends,
    )


def _rate(name: str, design: Design) -> Rate:
    rule = get_rule(name)
    given = _inputs(design)
    inputs = {key: given[key] for key in rule.needs}
    values = {key: float(np.ravel(value)[0]) for key, value in rule.apply(**inputs).items()}
    batch = values.get("batch_tokens")
    return Rate(
        rule=name,
        title=rule.title,
        learning_rate=values["learning_rate"],
        batch_tokens=None if batch is None else max(1, round(batch)),
        inputs=inputs,
        ranges=dict(rule.ranges),
        distance=_distance(inputs, rule.ranges),
    )


def _inputs(design: Design) -> dict[str, float]:
    """The inputs of the rules, as each paper counts them: compute without the output head."""
    count = design.count
    columns = {
        "train_flops": design.train_flops_without_head,
        "tokens": design.tokens,
        "params_non_embedding": count.params_non_embedding,
        "params_active_non_embedding": count.params_active_non_embedding,
        "expert_ratio": design.expert_ratio,
        "activation_rate": count.params_active_non_embedding / np.asarray(count.params_non_embedding, float),
        "d_model": design.shape.d_model,
    }
    return {name: float(np.ravel(column)[0]) for name, column in columns.items()}


def _distance(inputs: dict[str, float], ranges: Any) -> float | None:
    """The largest log10 distance outside the ranges; None where that of some input is unknown."""
    known = [(inputs[name], ends) for name, ends in ranges.items() if ends]
    if len(known) < len(inputs):
        return None
    return max(max(0.0, float(np.log10(value / high)), float(np.log10(low / value))) for value, (low, high) in known)
