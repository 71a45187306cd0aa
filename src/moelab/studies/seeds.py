"""Runs that differ in the seed alone: designs with their mean losses, and the noise between seeds."""

import math
import statistics
from dataclasses import dataclass

from moelab.runs import RunConfig, RunRecord

Trained = tuple[RunConfig, RunRecord]


@dataclass(frozen=True, kw_only=True)
class Design:
    """An architecture with its tokens: the mean loss over its seeds (nats per token), and one of its runs."""

    config: RunConfig
    record: RunRecord
    loss: float
    seeds: int

    def label(self, name: str, default: str = "") -> str:
        """A label that the experiment design gave it."""
        return self.config.labels.get(name, default)


def same_design(config: RunConfig) -> str:
    """The run id without seed, name, labels and parent: equal for runs that differ in the seed alone.

    Branches of trunks of other seeds are such runs.
    """
    bare = config.replace(train={**config.train.to_dict(), "seed": 0}, name=None, labels={}, parent=None)
    return bare.run_id


def each_once(trained: list[Trained]) -> list[Trained]:
    """The runs without those that are planned a second time: one run is one seed."""
    found: dict[str, Trained] = {}
    for config, record in trained:
        found.setdefault(config.run_id, (config, record))
    return list(found.values())


def mean_designs(trained: list[Trained]) -> list[Design]:
    """The designs of these runs with their mean losses, in the order of their first run; diverged runs are left out."""
    return [
        Design(config=runs[0][0], record=runs[0][1], loss=statistics.fmean(losses), seeds=len(losses))
        for runs, losses in _by_design(trained)
    ]


def _by_design(trained: list[Trained]) -> list[tuple[list[Trained], list[float]]]:
    """The runs of each design that did not diverge, with their losses."""
    groups: dict[str, tuple[list[Trained], list[float]]] = {}
    for config, record in each_once(trained):
        if record.loss is not None:
            runs, losses = groups.setdefault(same_design(config), ([], []))
            runs.append((config, record))
            losses.append(record.loss)
    return list(groups.values())


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
        from scipy.special import stdtrit  # of scipy.stats' t, which takes a second to import

        return float(stdtrit(self.freedom, (1 + level) / 2)) * self.deviation * math.sqrt(1 / seeds + 1 / others)


def seed_noise(trained: list[Trained]) -> SeedNoise | None:
    """The noise pooled over every design that was repeated; None without replicates."""
    repeated = [losses for _, losses in _by_design(trained) if len(losses) > 1]
    if not repeated:
        return None
    freedom = sum(len(losses) - 1 for losses in repeated)
    squares = sum(statistics.variance(losses) * (len(losses) - 1) for losses in repeated)
    return SeedNoise(deviation=math.sqrt(squares / freedom), freedom=freedom)
