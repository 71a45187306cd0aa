"""The compute-optimal point of one's own fit, with 80 % intervals and exponents over its bootstrap draws.

The loss has the interval of a prediction at that point, with the law's error beyond the fitted runs. That error moves
losses alone, so sizes, tokens and exponents have the intervals of the draws.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.checks import FEWEST_IN_INTERVAL
from moelab.fitting.fitted_kinds import beyond_runs, kind_of_runs, value_words
from moelab.fitting.intervals import interval_of, outside_note
from moelab.fitting.owed import owed_notes
from moelab.fitting.widening import AS_DRAWN, Widening, is_moe
from moelab.laws import Law
from moelab.laws.law import MOE_VARIABLES, RANGE_SLACK
from moelab.laws.optimum import Optimum, optimum
from moelab.laws.optimum_draws import optimum_draws
from moelab.laws.optimum_search import choices_given
from moelab.notebook import Shown, html_table, interval_text, short_repr

Array = NDArray[Any]
Ends = dict[str, float | None]
Ranges = Mapping[str, tuple[float, float]]
MOST_CHOICES = 64
"""Combinations of discrete choices above which draws keep those of the point."""
TOGETHER = 500
"""Draws that are solved at once."""
DRAWS_ALONE = (
    "the interval of the loss holds the law's error beyond the fitted runs, as predict has it; all others are those of "
    "the draws alone"
)


@dataclass(frozen=True, repr=False)
class FittedOptimum(Shown):
    """The point, its `intervals` by variable (and of the `loss`), and the `exponents` d ln x / d ln C of sizes and
    tokens around this compute; value, low and high (p10, p90). An end is None where draws have no optimum there."""

    point: Optimum
    intervals: dict[str, Ends]
    exponents: dict[str, Ends]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = {name.replace(" ", "_"): interval_text(**ends) for name, ends in self.intervals.items()}
        return short_repr(self, **shown)

    def _repr_html_(self) -> str:
        rows = [(name, *ends.values()) for name, ends in self.intervals.items()]
        rows += [(f"{name} ~ C^", *ends.values()) for name, ends in self.exponents.items()]
        return html_table(["at this compute", "value", "p10", "p90"], rows, note="; ".join(self.notes))


def fitted_optimum(
    law: Law,
    coefficients: Mapping[str, float],
    draws: Array,
    ranges: Ranges,
    flops: float,
    settings: Mapping[str, float],
    max_memory: float | None = None,
    widening: Widening = AS_DRAWN,
    prior: Mapping[str, Any] | None = None,
) -> FittedOptimum:
    """`FittedLaw.optimum` for a law with its coefficients, draws (B, number of coefficients), fitted ranges, the
    widening of its losses and its prior. Choices that `settings` leave are those within the ranges."""
    law = replace(law, choices=_within(law, ranges, settings))
    point = optimum(law, flops, settings, coefficients, max_memory, ranges)
    count = math.prod(len(values) for name, values in law.choices.items() if name not in settings)
    kept = [name for name in law.choices if name not in settings and len(law.choices[name]) > 1]
    held = {name: point.values[name] for name in kept} if count > MOST_CHOICES else {}
    pinned = {**settings, **held}
    own = {name: np.array([[value]]) for name, value in coefficients.items()}
    exponents = optimum_draws(law, flops, pinned, own, max_memory)[1]
    values, slopes = _drawn(law, draws, flops, pinned, max_memory)
    loss, wider = _loss(law, values.get("loss", np.zeros(0)), point, widening)
    names = {name: value for name, value in point.values.items() if name != "train_flops"}
    intervals = {"loss": loss} | {name: _ends(value, values.get(name)) for name, value in names.items()}
    powers = {name: _ends(float(each[0]), slopes.get(name)) for name, each in exponents.items()}
    powers = {name: ends for name, ends in powers.items() if np.isfinite(ends["value"] or np.nan)}
    notes = [*_dense_note(settings, point), *_design_notes(law, ranges, prior, point)]
    notes += [note for name, ends in {**intervals, **powers}.items() for note in outside_note(name, ends)]
    if held and len(draws):
        notes.append(f"the intervals keep {', '.join(held)} at the optimum's values")
    notes += [DRAWS_ALONE] if wider else []
    lost = _lost(law, values)
    if lost >= 0.005:
        notes.append(f"{lost:.0%} of the draws have no optimum among the sizes considered")
    return FittedOptimum(point, intervals, powers, tuple(notes))


def _within(law: Law, ranges: Ranges, settings: Mapping[str, float]) -> dict[str, tuple[float, ...]]:
    """The values of the law's choices that lie within the fitted runs' range; its ends where none does. Of
    granularities, those at which a set shared share is whole experts, where any is. Choices that are set keep theirs,
    as do those of which the runs give no range."""
    kept = dict(choices_given(law, settings))
    shared = settings.get("shared_share", 0.0)
    for name, values in kept.items():
        key = "expert_ratio" if name == "n_experts" and name not in ranges else name
        if name in settings or len(values) == 1 or key not in ranges:
            continue
        far = [law.distances({key: value}, ranges)[key] for value in values]
        inside = tuple(value for value, each in zip(values, far, strict=True) if each <= RANGE_SLACK)
        kept[name] = inside or tuple(dict.fromkeys(ranges[key]))
    if shared and "granularity" in kept and "granularity" not in settings:
        whole = tuple(each for each in kept["granularity"] if math.isclose(each * shared, round(each * shared)))
        kept["granularity"] = whole or kept["granularity"]
    derived = "n_experts" in settings and "expert_ratio" in law.choices
    if derived and "granularity" in kept and "granularity" not in settings:
        kept["granularity"] = _granularities(law, kept["granularity"], ranges, settings)
    return kept


def _granularities(
    law: Law, values: tuple[float, ...], ranges: Ranges, settings: Mapping[str, float]
) -> tuple[float, ...]:
    """Those at which the experts set are a MoE model (one expert: a dense one), where any is, and of them those whose
    `expert_ratio` is within the fitted runs' range, or nearest to it. Raises InputError where more are in use."""
    assert law.at_compute is not None
    given = [law.at_compute(np.ones(1), 1.0, {**settings, "granularity": each}) for each in values]
    ratios = {each: float(at["expert_ratio"][0]) for each, at in zip(values, given, strict=True)}
    enough = tuple(each for each in values if ratios[each] >= 1)
    if not enough:
        experts, least = settings["n_experts"], min(values)
        raise InputError(f"set: n_experts is {experts:g}, fewer than are in use at the runs' granularity ({least:g})")
    values = tuple(each for each in enough if ratios[each] > 1 or settings["n_experts"] == 1) or enough
    if "expert_ratio" not in ranges:
        return values
    far = {each: law.distances({"expert_ratio": ratios[each]}, ranges)["expert_ratio"] for each in values}
    return tuple(each for each in values if far[each] <= max(RANGE_SLACK, min(far.values())))


def _design_notes(law: Law, ranges: Ranges, prior: Mapping[str, Any] | None, point: Optimum) -> list[str]:
    """What a prediction at the point notes of its experts: those that no run has, and what the prior alone states."""
    design = {name: point.values[name] for name in law.variables}
    moe = bool(is_moe({name: np.array([value]) for name, value in design.items()}).any())
    owed = owed_notes(law.id, prior, moe or kind_of_runs(ranges) == "MoE")
    return [*owed, *beyond_runs(law.id, law, ranges, prior, design)]


def _dense_note(settings: Mapping[str, float], point: Optimum) -> list[str]:
    """One line where the experts set are all in use, so that the point is the dense model's and not as set."""
    given = {name: value for name, value in settings.items() if name in MOE_VARIABLES and name in point.values}
    at = {name: point.values[name] for name, value in given.items() if not math.isclose(point.values[name], value)}
    if not at:
        return []
    return [f"with {value_words(given)} all experts are in use, so the design is dense: {value_words(at)}"]


def _drawn(
    law: Law, draws: Array, flops: float, settings: Mapping[str, float], max_memory: float | None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values and exponents of all draws by name, (B,); in blocks."""
    parts = []
    for first in range(0, len(draws), TOGETHER):
        block = {name: draws[first : first + TOGETHER, k, None] for k, name in enumerate(law.coefficients)}
        parts.append(optimum_draws(law, flops, settings, block, max_memory))
    if not parts:
        return {}, {}
    values, slopes = ([part[k] for part in parts] for k in (0, 1))
    return tuple({name: np.concatenate([part[name] for part in each]) for name in each[0]} for each in (values, slopes))  # type: ignore[return-value]


def _loss(law: Law, drawn: Array, point: Optimum, widening: Widening) -> tuple[Ends, bool]:
    """The optimum's loss with the ends of the draws' (B,), widened as a prediction there is; whether they are."""
    variables = {name: np.array([point.values[name]]) for name in law.variables}
    losses = widening.of(drawn[:, None], np.array([point.loss]), variables)[:, 0]
    wider = not np.allclose(losses, drawn, rtol=1e-12, equal_nan=True)
    return interval_of(point.loss, losses[np.isfinite(losses)]), wider


def _ends(value: float, drawn: Array | None) -> Ends:
    """p10 and p90 of draws; None where that end is infinite, 0 (no optimum) or unknown, or where draws are few."""
    if drawn is None or len(drawn) < FEWEST_IN_INTERVAL:
        return {"value": value, "low": None, "high": None}
    usable = np.sort(drawn[~np.isnan(drawn)])
    if len(usable) < FEWEST_IN_INTERVAL:
        return {"value": value, "low": None, "high": None}
    last = len(usable) - 1
    low, high = float(usable[math.floor(0.1 * last)]), float(usable[math.ceil(0.9 * last)])
    below, above = not np.isfinite(low) or (low <= 0 < value), not np.isfinite(high)
    return {"value": value, "low": None if below else low, "high": None if above else high}


def _lost(law: Law, values: Mapping[str, Array]) -> float:
    """The share of draws without an optimum."""
    size = next((name for name in law.variables if name.startswith("params_") and name in values), None)
    if size is None:
        return 0.0
    return float(np.mean(~np.isfinite(values[size]) | (values[size] == 0)))
