"""Experiment designs: the papers' experiments as generators of run configs from a budget, exactly matched and counted.

A design alone is an architecture with its tokens; an experiment design plans many of them.
"""

import difflib
from typing import Any

from moelab.errors import InputError
from moelab.experiments.base import ExperimentDesign, Planned, Template
from moelab.experiments.equal_resources import EqualResources
from moelab.experiments.experts import Expansion, Granularity
from moelab.experiments.grid import RunGrid
from moelab.experiments.isoflop import IsoFlop
from moelab.experiments.ladder import Ladder
from moelab.experiments.matching import Match, match_runs
from moelab.experiments.mixtures import MixtureOfTokens
from moelab.experiments.overtraining import OverTraining
from moelab.experiments.rates import LearningRates, Repeats

EXPERIMENT_DESIGNS: dict[str, type[ExperimentDesign]] = {
    str(kind.model_fields["design"].default): kind
    for kind in (
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
"""The experiment designs by their name under the key `design:`; an entry without the key is a grid."""


def parse_experiment(value: Any) -> ExperimentDesign:
    """An entry of `runs` as its experiment design. Raises InputError naming the field, or the known designs."""
    if isinstance(value, ExperimentDesign):
        return value
    if not isinstance(value, dict):
        raise InputError(f"expected keys and values, got {type(value).__name__}")
    kind = value.get("design", "grid")
    if not isinstance(kind, str) or kind not in EXPERIMENT_DESIGNS:
        near = difflib.get_close_matches(str(kind), list(EXPERIMENT_DESIGNS), n=1, cutoff=0.0)
        raise InputError(
            f"design: expected one of {', '.join(EXPERIMENT_DESIGNS)}, got {kind!r}; did you mean {near[0]!r}?"
        )
    return EXPERIMENT_DESIGNS[kind].parse(value)


__all__ = [
    "EXPERIMENT_DESIGNS",
    "ExperimentDesign",
    "Match",
    "Planned",
    "RunGrid",
    "Template",
    "match_runs",
    "parse_experiment",
]
