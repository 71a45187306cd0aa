"""The runs of a study: the data they share, the sweep that sets one field, the designs, in that order."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from moelab.data import Dataset, prepare
from moelab.data.progress import Report
from moelab.runs import RunConfig, RunRecord
from moelab.studies.config import StudyConfig, Sweep, build_runs
from moelab.studies.display import Display
from moelab.studies.folder import StudyFolder
from moelab.studies.local import run_all
from moelab.training import resolve_run


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """Mean loss by value, the winner, and whether it stands at the edge of the values tried."""

    field: str
    losses: dict[float, float]
    chosen: float

    @property
    def at_edge(self) -> bool:
        """Whether a value outside those tried might be better still."""
        return self.chosen in (min(self.losses), max(self.losses)) and len(self.losses) > 1


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What every step that trains needs."""

    study: StudyConfig
    folder: StudyFolder
    display: Display
    workers: int

    def prepare_data(self, report: Report) -> Dataset:
        """The study's text, prepared once."""
        prepared = prepare(self.study.data, self.folder.data, report=report)
        manifest = prepared.dataset.manifest
        tokens = manifest.total("train").tokens
        self.display.say(
            f"{tokens / 1e6:.1f}M training tokens, vocabulary {manifest.vocab_size}, "
            f"{manifest.bytes_per_token:.2f} bytes per token{' (reused)' if prepared.reused else ''}"
        )
        return prepared.dataset

    def train(self, configs: list[RunConfig], dataset: Dataset) -> list[tuple[RunConfig, RunRecord]]:
        """Resolve and train; a run that is already there is only read."""
        resolved = [resolve_run(config, dataset) for config in configs]
        records = run_all(
            resolved, self.folder.runs, self.folder.data, workers=self.workers, observe=self.display.board
        )
        self.display.close()
        return list(zip(resolved, records, strict=True))

    def sweep(self, sweep: Sweep, dataset: Dataset) -> SweepOutcome:
        """Train the sweep's runs with every value and take the value with the lowest mean loss."""
        configs, values = [], []
        for value in sweep.values:
            built = build_runs(self.study, sweep.runs, str(self.folder.data), {sweep.field: value})
            configs += [config.replace(name=f"{config.name} {value:g}") for config in built]
            values += [value] * len(built)
        trained = self.train(configs, dataset)
        found: dict[float, list[float]] = {}
        for value, (_, record) in zip(values, trained, strict=True):
            found.setdefault(value, []).append(math.inf if record.loss is None else record.loss)
        losses = {value: statistics.fmean(each) for value, each in found.items()}
        return SweepOutcome(field=sweep.field, losses=losses, chosen=min(losses, key=losses.__getitem__))

    def designs(self, common: dict[str, Any], dataset: Dataset) -> list[tuple[RunConfig, RunRecord]]:
        """The study's own runs."""
        return self.train(build_runs(self.study, self.study.runs, str(self.folder.data), common), dataset)


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """Standard deviation of the loss between runs that differ in the seed alone, from `freedom` degrees of freedom."""

    deviation: float
    freedom: int

    def spread(self, seeds: int = 1, level: float = 0.8) -> float:
        """Half the interval of a difference of two designs trained with `seeds` seeds each (Student's t)."""
        from scipy.stats import t

        return float(t.ppf((1 + level) / 2, self.freedom)) * self.deviation * math.sqrt(2 / seeds)


def seed_noise(trained: list[tuple[RunConfig, RunRecord]]) -> SeedNoise | None:
    """The noise pooled over every design that was repeated; None without replicates."""
    groups: dict[str, list[float]] = {}
    for config, record in trained:
        if record.loss is not None:
            twin = config.replace(train={**config.train.to_dict(), "seed": 0}, name=None, labels={})
            groups.setdefault(twin.run_id, []).append(record.loss)
    repeated = [losses for losses in groups.values() if len(losses) > 1]
    if not repeated:
        return None
    freedom = sum(len(losses) - 1 for losses in repeated)
    squares = sum(statistics.variance(losses) * (len(losses) - 1) for losses in repeated)
    return SeedNoise(deviation=math.sqrt(squares / freedom), freedom=freedom)
