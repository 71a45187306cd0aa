"""The input and output of an analysis: designs with their mean losses in; sentences, a section and numbers out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moelab.experiments import ExperimentDesign
from moelab.report import Fact, Section
from moelab.studies.config import StudyConfig
from moelab.studies.seeds import Design, SeedNoise, Trained, each_once, mean_designs


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one entry of a study: sentences, a section of the page, and plain data."""

    name: str
    sentences: list[str]
    section: Section
    facts: list[Fact] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An entry's trained designs, and the noise between seeds."""

    study: StudyConfig
    experiment: ExperimentDesign
    designs: list[Design]
    diverged: int
    noise: SeedNoise | None

    def by(self, key: Callable[[Design], Any]) -> dict[Any, list[Design]]:
        """The designs in groups, in the order of their first appearance."""
        groups: dict[Any, list[Design]] = {}
        for design in self.designs:
            groups.setdefault(key(design), []).append(design)
        return groups

    def judged(self, ahead: Design, behind: Design) -> str:
        """A margin as text, with whether it exceeds the noise between seeds (5 % level)."""
        return judge_margin(behind.loss - ahead.loss, self.noise, ahead.seeds, behind.seeds)


def judge_margin(margin: float, noise: SeedNoise | None, seeds: int = 1, others: int = 1) -> str:
    """A margin as text, such as `0.013 nats, more than seeds explain (0.008 at the 5 % level)`."""
    text = f"{abs(margin):.3f} nats"
    if noise is None:
        return f"{text} (no run was repeated, so the noise between seeds is unknown)"
    bound = noise.bound(seeds, others, 0.95)
    if abs(margin) > bound:
        return f"{text}, more than seeds explain ({bound:.3f} at the 5 % level)"
    return f"{text}, no more than seeds explain ({bound:.3f} at the 5 % level)"


def evidence(
    study: StudyConfig, experiment: ExperimentDesign, trained: list[Trained], noise: SeedNoise | None
) -> Evidence:
    """The trained runs of one entry (repeats of its runs included), averaged over seeds."""
    own = each_once([(config, record) for config, record in trained if config.labels.get("group") == experiment.name])
    diverged = sum(record.loss is None for _, record in own)
    return Evidence(study=study, experiment=experiment, designs=mean_designs(own), diverged=diverged, noise=noise)


def power(flops: float) -> str:
    """FLOPs as text: 2.14e11."""
    return re.sub(r"e\+0*", "e", f"{flops:.2e}")


def diverged_warning(found: Evidence) -> list[str]:
    """The warning about diverged runs, if there are any."""
    if not found.diverged:
        return []
    return [
        f"{found.diverged} run{'s' if found.diverged > 1 else ''} of {found.experiment.name} diverged and are left out."
    ]
