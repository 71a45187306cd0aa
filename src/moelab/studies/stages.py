"""Stages that feed each winner to what follows, as in Li et al.'s three-step method (arXiv 2506.12119)."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from moelab.errors import InputError, MoelabError
from moelab.notebook import Shown
from moelab.runs import RunConfig, RunRecord
from moelab.studies.config import Stage

Trained = tuple[RunConfig, RunRecord]


class AllDiverged(MoelabError):
    """Every run that a study rests on diverged: nothing is left to choose from or to compare."""


def same_design(config: RunConfig) -> str:
    """What runs that differ in the seed alone have in common; branches of trunks of other seeds are such runs."""
    twin = config.replace(train={**config.train.to_dict(), "seed": 0}, name=None, labels={}, parent=None)
    return twin.run_id


@dataclass(frozen=True, kw_only=True, repr=False)
class StageOutcome(Shown):
    """A stage's designs by mean loss over their seeds, best first, and the fields its winner sets."""

    stage: Stage
    ranked: list[tuple[RunConfig, RunRecord, float, int]]
    trained: list[Trained]
    chosen: dict[str, Any]

    @property
    def winner(self) -> RunConfig:
        """The best design's run."""
        return self.ranked[0][0]

    @property
    def margin(self) -> float | None:
        """How far the second design is behind, nats; None where there is no second."""
        return self.ranked[1][2] - self.ranked[0][2] if len(self.ranked) > 1 else None


def choose(stage: Stage, trained: list[Trained]) -> StageOutcome:
    """The winner and what it carries over. Dense rivals do not compete. Raises AllDiverged where no run is left."""
    groups: dict[str, list[Trained]] = {}
    for config, record in each_once(trained):
        if record.loss is not None and competes(config):
            groups.setdefault(same_design(config), []).append((config, record))
    if not groups:
        raise AllDiverged(f"study: every run of the stage {stage.name} that may win diverged")
    ranked = [
        (*runs[0], statistics.fmean(record.loss for _, record in runs if record.loss is not None), len(runs))
        for runs in groups.values()
    ]
    ranked.sort(key=lambda entry: entry[2])
    return StageOutcome(stage=stage, ranked=ranked, trained=trained, chosen=carried(stage, ranked[0][0]))


def each_once(trained: list[Trained]) -> list[Trained]:
    """The runs without those that are planned a second time: one run is one seed."""
    found: dict[str, Trained] = {}
    for config, record in trained:
        found.setdefault(config.run_id, (config, record))
    return list(found.values())


def competes(config: RunConfig) -> bool:
    """Whether a stage's run may win: dense rivals may not."""
    return config.labels.get("role") != "dense"


def carried(stage: Stage, winner: RunConfig) -> dict[str, Any]:
    """The fields that a winner sets for all later runs. Raises InputError for one that no run has."""
    return {name: _field(winner, name) for name in stage.carry}


def _field(config: RunConfig, name: str) -> Any:
    value: Any = config.to_dict()
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"stages.carry: a run has no field {name!r}, such as model or train.learning_rate")
        value = value[part]
    return value


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """Standard deviation of the loss between runs that differ in the seed alone, from `freedom` degrees of freedom."""

    deviation: float
    freedom: int

    def spread(self, seeds: int = 1, level: float = 0.8) -> float:
        """Half the interval of a difference of two designs trained with `seeds` seeds each (Student's t)."""
        return self.bound(seeds, seeds, level)

    def bound(self, seeds: int, others: int, level: float) -> float:
        """The same for designs trained with different numbers of seeds."""
        from scipy.stats import t

        return float(t.ppf((1 + level) / 2, self.freedom)) * self.deviation * math.sqrt(1 / seeds + 1 / others)


def seed_noise(trained: list[Trained]) -> SeedNoise | None:
    """The noise pooled over every design that was repeated; None without replicates."""
    groups: dict[str, list[float]] = {}
    for config, record in each_once(trained):
        if record.loss is not None:
            groups.setdefault(same_design(config), []).append(record.loss)
    repeated = [losses for losses in groups.values() if len(losses) > 1]
    if not repeated:
        return None
    freedom = sum(len(losses) - 1 for losses in repeated)
    squares = sum(statistics.variance(losses) * (len(losses) - 1) for losses in repeated)
    return SeedNoise(deviation=math.sqrt(squares / freedom), freedom=freedom)
