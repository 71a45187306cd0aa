"""The findings of a study: one analysis per experiment design, with sentences, figures, tables and plain data."""

from collections.abc import Callable

from moelab.studies.config import StudyConfig
from moelab.studies.findings.base import Evidence, Finding, evidence
from moelab.studies.findings.equal_resources import equal_resources_finding
from moelab.studies.findings.experts import expansion_finding, granularity_finding
from moelab.studies.findings.grid import grid_finding
from moelab.studies.findings.isoflop import isoflop_finding
from moelab.studies.findings.mixtures import mixture_of_tokens_finding
from moelab.studies.findings.overtraining import overtraining_finding
from moelab.studies.findings.rates import ladder_finding, learning_rate_finding
from moelab.studies.seeds import SeedNoise, Trained

ANALYSES: dict[str, Callable[[Evidence], Finding | None]] = {
    "grid": grid_finding,
    "isoflop": isoflop_finding,
    "granularity": granularity_finding,
    "expansion": expansion_finding,
    "equal_resources": equal_resources_finding,
    "overtraining": overtraining_finding,
    "ladder": ladder_finding,
    "learning_rate": learning_rate_finding,
    "mixture_of_tokens": mixture_of_tokens_finding,
}
"""The analysis of each experiment design. Repeats have none: the noise reads their runs."""


def find_all(study: StudyConfig, trained: list[Trained], noise: SeedNoise | None) -> list[Finding]:
    """The finding of every entry with an analysis and a run that did not diverge; stages after the runs."""
    found = []
    for entry in [*study.runs, *(entry for stage in study.stages for entry in stage.runs)]:
        analysis = ANALYSES.get(entry.design)
        if analysis is None:
            continue
        seen = evidence(study, entry, trained, noise)
        finding = analysis(seen) if seen.designs else None
        if finding is not None:
            found.append(finding)
    return found


__all__ = ["ANALYSES", "Evidence", "Finding", "find_all"]
