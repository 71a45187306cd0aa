"""The experts and the granularity of a fit's runs: a plan ranks no design beyond them, and no run supports one."""

from collections.abc import Mapping, Sequence
from typing import Any

from moelab.fitting.blanks import DENSE
from moelab.laws import Law
from moelab.laws.law import MOE_VARIABLES, RANGE_SLACK

Ranges = Mapping[str, tuple[float, float] | None]
MARKS = ("n_experts", "expert_ratio", "expansion", "sparsity", "expert_activation", "activation_rate")
"""Variables whose value separates a MoE run from a dense one."""
EXTRAPOLATE = "--extrapolate"


def kind_of_runs(ranges: Ranges) -> str | None:
    """`dense` or `MoE` where all runs of these ranges are of that kind; None for both kinds, or where none shows it."""
    ends = {name: limits for name, limits in ranges.items() if limits and name in MARKS}
    if not ends:
        return None
    if all(low == high == DENSE[name] for name, (low, high) in ends.items()):
        return "dense"
    return "MoE" if any(not low <= DENSE[name] <= high for name, (low, high) in ends.items()) else None


def single_values(ranges: Ranges) -> dict[str, float]:
    """The variables of experts of which all runs have one value."""
    found = {name: limits[0] for name, limits in ranges.items() if limits and limits[0] == limits[1]}
    return {name: value for name, value in found.items() if name in MOE_VARIABLES}


def beyond_runs(
    name: str, law: Law, ranges: Ranges, prior: Mapping[str, Any] | None, variables: Mapping[str, float]
) -> list[str]:
    """One line where a design's experts, granularity or other setting lie outside those of the fitted runs, so that a
    plan with this fit ranks no such design; none inside."""
    distances = law.distances(variables, ranges, scale=False)
    outside = {each: variables[each] for each, distance in distances.items() if distance > RANGE_SLACK}
    if not outside:
        return []
    kind, marked = kind_of_runs(ranges), {each: value for each, value in outside.items() if each in MARKS}
    if kind == "dense" and marked:
        worth = "no run shows" if prior is None else "the prior alone states"
        return [
            f"{name}: all fitted runs are dense, so {worth} what experts are worth; "
            f"plan ranks no MoE design by this fit without {EXTRAPOLATE}"
        ]
    if kind == "MoE" and marked and all(value == DENSE[each] for each, value in marked.items()):
        return [
            f"{name}: no fitted run is dense, so a dense model's loss is extrapolated from MoE models; "
            f"plan ranks no dense design by this fit without {EXTRAPOLATE}"
        ]
    shown = [f"{each} is {value:.3g} (in the fitted runs {_ends(ranges[each])})" for each, value in outside.items()]
    return [f"{name}: {', '.join(shown)}; plan ranks no such design by this fit without {EXTRAPOLATE}"]


def value_words(values: Mapping[str, float]) -> str:
    """Variables with their values: expert_ratio 8, granularity 1 and shared_share 0."""
    words = [f"{name} {value:.3g}" for name, value in values.items()]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else "".join(words)


def _ends(limits: Sequence[float] | None) -> str:
    assert limits is not None
    low, high = limits
    return f"{low:.3g} alone" if low == high else f"{low:.3g} to {high:.3g}"
