"""Stages whose winner sets fields of what follows, as in Li et al.'s three-step method (arXiv 2506.12119)."""

from dataclasses import dataclass
from typing import Any

from moelab.errors import InputError, MoelabError
from moelab.notebook import Shown
from moelab.runs import RunConfig
from moelab.studies.config import Stage
from moelab.studies.seeds import Design, Trained, mean_designs


class AllDiverged(MoelabError):
    """Every run that a study rests on diverged: nothing is left to choose from or to compare."""


@dataclass(frozen=True, kw_only=True, repr=False)
class StageOutcome(Shown):
    """A stage's designs by mean loss over their seeds, best first, and the fields its winner sets."""

    stage: Stage
    ranked: list[Design]
    trained: list[Trained]
    chosen: dict[str, Any]

    @property
    def winner(self) -> RunConfig:
        """The best design's run."""
        return self.ranked[0].config

    @property
    def margin(self) -> float | None:
        """How far the second design is behind, nats; None where there is no second."""
        return self.ranked[1].loss - self.ranked[0].loss if len(self.ranked) > 1 else None


def choose(stage: Stage, trained: list[Trained]) -> StageOutcome:
    """The winner and the fields it sets. Dense baselines do not compete. Raises AllDiverged where no run is left."""
    ranked = mean_designs([(config, record) for config, record in trained if competes(config)])
    if not ranked:
        raise AllDiverged(f"study: every run of the stage {stage.name} that may win diverged")
    ranked.sort(key=lambda design: design.loss)
    return StageOutcome(stage=stage, ranked=ranked, trained=trained, chosen=carried(stage, ranked[0].config))


def competes(config: RunConfig) -> bool:
    """Whether a stage's run may win: dense baselines may not."""
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
