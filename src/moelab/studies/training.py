"""Training the runs of a study: the shared data, the sweep that sets one field, the stages, the entries."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from moelab.data import Dataset
from moelab.data.prepare import prepare
from moelab.data.progress import Report
from moelab.errors import MoelabError
from moelab.executors import ExecutorConfig, run_all
from moelab.executors.display import Display
from moelab.experiments import ExperimentDesign
from moelab.experiments.ladder import BRANCH_OF, BRANCH_STEP, TRUNK
from moelab.runs import RunConfig
from moelab.studies.build import build_runs
from moelab.studies.config import Stage, StudyConfig, Sweep
from moelab.studies.folder import StudyFolder
from moelab.studies.seeds import Trained
from moelab.studies.stages import AllDiverged, StageOutcome, choose
from moelab.studies.text import check_runs
from moelab.training import resolve_run


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """Mean loss by value, and the chosen value."""

    field: str
    losses: dict[float, float]
    chosen: float

    @property
    def at_edge(self) -> bool:
        """Whether the chosen value is at an edge of the values tried, so that one beyond may be better."""
        return self.chosen in (min(self.losses), max(self.losses)) and len(self.losses) > 1


@dataclass(frozen=True, kw_only=True)
class StudyContext:
    """What every training step needs. `seen` collects the runs that ended, `failed` the reasons of the others."""

    study: StudyConfig
    folder: StudyFolder
    display: Display
    executor: ExecutorConfig
    workers: int = 0
    seen: list[Trained] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def prepare_data(self, report: Report) -> Dataset:
        """The study's text, prepared once."""
        prepared = prepare(self.study.data, self.folder.data, report=report)
        manifest = prepared.dataset.manifest
        tokens = manifest.total("train").tokens
        self.display.line(
            f"{tokens / 1e6:.1f}M training tokens, vocabulary {manifest.vocab_size}, "
            f"{manifest.bytes_per_token:.2f} bytes per token{' (reused)' if prepared.reused else ''}"
        )
        return prepared.dataset

    def resolve(self, config: RunConfig, dataset: Dataset) -> RunConfig:
        """A run with every automatic setting resolved."""
        return resolve_run(config, dataset, elsewhere=self.executor.kind != "local", root=self.folder.runs)

    def train(self, configs: list[RunConfig], dataset: Dataset) -> list[Trained]:
        """Resolve and train; a finished run is only read. The result leaves out runs that failed.

        Raises MoelabError where all of them failed.
        """
        resolved = [self.resolve(config, dataset) for config in configs]
        outcome = run_all(
            resolved,
            self.folder.runs,
            self.folder.data,
            executor=self.executor,
            workers=self.workers,
            name=self.study.name,
            observe=self.display.board,
            note=self.display.line,
        )
        self.display.close()
        self.seen.extend(outcome.trained)
        names = {config.run_id: config.name or config.run_id for config in resolved}
        for run_id, reason in outcome.failed.items():
            self.failed[f"{names[run_id]} ({run_id})"] = reason
        if not outcome.trained:
            name, reason = next(iter(self.failed.items()))
            raise MoelabError(f"study: all {len(names)} runs failed; first {name}: {reason}")
        return outcome.trained

    def sweep(self, sweep: Sweep, dataset: Dataset) -> SweepOutcome:
        """Train the sweep's runs with every value and take the value with the lowest mean loss."""
        configs, values = [], []
        for value in sweep.values:
            built = build_runs(self.study, sweep.runs, str(self.folder.data), {sweep.field: value}, rates=False)
            configs += [config.replace(name=f"{config.name} {value:g}") for config in built]
            values += [value] * len(built)
        trained = self.train(configs, dataset)
        self._need_all(sweep.field)
        found: dict[float, list[float]] = {}
        for value, (_, record) in zip(values, trained, strict=True):
            found.setdefault(value, []).append(math.inf if record.loss is None else record.loss)
        losses = {value: statistics.fmean(each) for value, each in found.items()}
        if not math.isfinite(min(losses.values())):
            tried = ", ".join(f"{value:g}" for value in losses)
            raise AllDiverged(f"study: sweep of {sweep.field}: every run diverged at each of {tried}")
        return SweepOutcome(field=sweep.field, losses=losses, chosen=min(losses, key=losses.__getitem__))

    def designs(self, common: dict[str, Any], dataset: Dataset) -> list[Trained]:
        """The study's own runs, without the trunks of branches. Raises AllDiverged where no run is left."""
        found = self.trained(self.study.runs, common, dataset)
        if all(record.loss is None for _, record in found):
            raise AllDiverged(f"study: every run {'diverged or failed' if self.failed else 'diverged'}")
        return found

    def stage(self, stage: Stage, common: dict[str, Any], dataset: Dataset) -> StageOutcome:
        """Train a stage's runs; its winner sets fields of all that follows."""
        trained = self.trained(stage.runs, common, dataset)
        self._need_all(f"the winner of stage {stage.name}")
        return choose(stage, trained)

    def _need_all(self, choice: str) -> None:
        """Raises MoelabError where a run failed: the choice could be another with it."""
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            raise MoelabError(f"study: {choice} cannot be chosen, a run failed: {name}: {reason}")

    def trained(self, entries: list[ExperimentDesign], common: dict[str, Any], dataset: Dataset) -> list[Trained]:
        """Entries trained: trunks and independent runs first, then the branches, each with its parent filled in."""
        configs = build_runs(self.study, entries, str(self.folder.data), common)
        check_runs(self.study, configs, len(dataset.train) - 1)
        first = [config for config in configs if BRANCH_OF not in config.labels]
        done = self.train(first, dataset)
        trunks = {config.labels[TRUNK]: record for config, record in done if TRUNK in config.labels}
        branches = []
        for config in configs:
            trunk = config.labels.get(BRANCH_OF)
            if trunk is None:
                continue
            record, step = trunks.get(trunk), int(config.labels[BRANCH_STEP])
            if record is None:
                self.failed[config.name or trunk] = f"its trunk {trunk} failed"
            elif record.stopped_at is not None and record.stopped_at <= step:
                self.failed[config.name or trunk] = f"its trunk {trunk} diverged at step {record.stopped_at}"
            else:
                branches.append(config.replace(parent={"run": record.run_id, "step": step}))
        later = self.train(branches, dataset) if branches else []
        return [(config, record) for config, record in (*done, *later) if TRUNK not in config.labels]
