"""What an analysis reads and what it gives: designs with their mean losses in; sentences, a section and numbers out."""

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from moelab.experiments import RunSource
from moelab.report import Fact, Section
from moelab.runs import RunConfig, RunRecord
from moelab.studies.config import StudyConfig
from moelab.studies.stages import SeedNoise, Trained, each_once, same_design


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one entry of a study, in words, on the page, and as plain data."""

    name: str
    sentences: list[str]
    section: Section
    facts: list[Fact] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Design:
    """One design of an entry: the mean loss over its seeds (nats per token), and one of its runs."""

    config: RunConfig
    record: RunRecord
    loss: float
    seeds: int

    def label(self, name: str, default: str = "") -> str:
        """A label that the design's plan gave it."""
        return self.config.labels.get(name, default)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An entry's trained designs, and the noise between seeds."""

    study: StudyConfig
    source: RunSource
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
        """A margin in words, with whether the seeds decide it (95 %)."""
        return judge_margin(behind.loss - ahead.loss, self.noise, ahead.seeds, behind.seeds)


def judge_margin(margin: float, noise: SeedNoise | None, seeds: int = 1, others: int = 1) -> str:
    """`0.013 nats, more than seeds explain (95 %: 0.008)`, or that it decides nothing."""
    text = f"{abs(margin):.3f} nats"
    if noise is None:
        return f"{text} (no run was repeated: how much of it is chance is unknown)"
    bound = noise.bound(seeds, others, 0.95)
    if abs(margin) > bound:
        return f"{text}, more than seeds explain (95 %: {bound:.3f})"
    return f"{text}, no more than seeds explain (95 %: {bound:.3f})"


def evidence(study: StudyConfig, source: RunSource, trained: list[Trained], noise: SeedNoise | None) -> Evidence:
    """The trained runs of one entry (repeats of its runs included), averaged over seeds."""
    own = each_once([(config, record) for config, record in trained if config.labels.get("group") == source.name])
    diverged = sum(record.loss is None for _, record in own)
    return Evidence(study=study, source=source, designs=mean_designs(own), diverged=diverged, noise=noise)


def mean_designs(trained: list[Trained]) -> list[Design]:
    """The designs of these runs with their mean losses, in the order of their first run; diverged runs are left out."""
    groups: dict[str, list[Trained]] = {}
    for config, record in each_once(trained):
        if record.loss is not None:
            groups.setdefault(same_design(config), []).append((config, record))
    return [
        Design(
            config=runs[0][0],
            record=runs[0][1],
            loss=statistics.fmean(record.loss for _, record in runs if record.loss is not None),
            seeds=len(runs),
        )
        for runs in groups.values()
    ]


def power(flops: float) -> str:
    """FLOPs as people write them: 2.14e11."""
    return re.sub(r"e\+0*", "e", f"{flops:.2e}")


def diverged_warning(found: Evidence) -> list[str]:
    """A word on the runs that are missing."""
    if not found.diverged:
        return []
    return [
        f"{found.diverged} run{'s' if found.diverged > 1 else ''} of {found.source.name} diverged and are left out."
    ]
