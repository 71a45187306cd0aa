"""Designs: the experiments of the papers as generators of run configs from a budget, exactly matched and counted."""

import difflib
from typing import Any

from moelab.errors import InputError
from moelab.experiments.base import Planned, RunSource, Template
from moelab.experiments.equal_resources import EqualResources
from moelab.experiments.experts import Expansion, Granularity
from moelab.experiments.grid import RunGrid
from moelab.experiments.isoflop import IsoFlop
from moelab.experiments.ladder import Ladder
from moelab.experiments.matching import Match, match_runs
from moelab.experiments.mixtures import MixtureOfTokens
from moelab.experiments.overtraining import OverTraining
from moelab.experiments.rates import LearningRates, Repeats

DESIGNS: dict[str, type[RunSource]] = {
    str(design.model_fields["design"].default): design
    for design in (
        RunGrid,
        IsoFlop,
        Granularity,
        Expansion,
        EqualResources,
        OverTraining,
        Ladder,
        LearningRates,
        MixtureOfTokens,
        Repeats,
    )
}
"""The designs by the name that `design:` gives them; without it an entry is a grid."""


def parse_source(value: Any) -> RunSource:
    """An entry of `runs` as its design. Raises InputError naming the field, or the designs there are."""
    if isinstance(value, RunSource):
        return value
    if not isinstance(value, dict):
        raise InputError(f"expected keys and values, got {type(value).__name__}")
    kind = value.get("design", "grid")
    if not isinstance(kind, str) or kind not in DESIGNS:
        near = difflib.get_close_matches(str(kind), list(DESIGNS), n=1, cutoff=0.0)
        raise InputError(f"design: expected one of {', '.join(DESIGNS)}, got {kind!r}; did you mean {near[0]!r}?")
    return DESIGNS[kind].parse(value)


__all__ = ["DESIGNS", "Match", "Planned", "RunGrid", "RunSource", "Template", "match_runs", "parse_source"]
