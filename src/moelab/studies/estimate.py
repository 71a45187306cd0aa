"""The cost of a study before it is started: runs, FLOPs, hours from measured speed, disk and memory."""

import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moelab.architecture import count_parameters
from moelab.data import Dataset
from moelab.errors import InputError
from moelab.executors.local import local_workers
from moelab.executors.memory import run_memory
from moelab.executors.order import Needs
from moelab.executors.slurm import slurm_workers
from moelab.experiments import Match, match_runs
from moelab.notebook import Shown
from moelab.runs import RunConfig, RunFolder, run_columns
from moelab.studies.config import StudyConfig
from moelab.studies.folder import StudyFolder
from moelab.studies.speeds import Speeds, measure
from moelab.studies.steps import Step, own_flops, study_steps

_STATES = {"adamw": 3, "muon": 2}
"""Numbers of a checkpoint per parameter: the weight and the optimiser's state."""


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """The cost of one run. `seconds` is None where no speed is known, 0 where the run is finished."""

    step: str
    config: RunConfig
    flops: float
    seconds: float | None
    done: bool

    def to_dict(self) -> dict[str, Any]:
        """A row for the printed table and for JSON."""
        columns = run_columns(self.config)
        named = {name: columns[name] for name in ("name", "kind", "params_active", "params_total", "tokens")}
        named |= {"learning_rate": self.config.train.learning_rate, "batch_tokens": self.config.train.batch_tokens}
        return {"step": self.step} | named | {"train_flops": self.flops, "seconds": self.seconds, "done": self.done}


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The cost of one step: wall-clock seconds with the study's workers in parallel."""

    step: Step
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """A row for the printed table and for JSON."""
        hours = None if self.seconds is None else self.seconds / 3600
        own = {"runs": self.step.n_runs, "train_flops": self.step.train_flops, "hours": hours}
        return {"step": self.step.name} | own | {"note": self.step.note}


@dataclass(frozen=True, kw_only=True, repr=False)
class Estimate(Shown):
    """The cost of a study, each run counted once. `hours` is None where no speed is known (`speeds.missing`).

    `disk_bytes` includes the text, except where it is neither prepared nor limited: then `text_bytes` is None.
    """

    study: StudyConfig
    workers: int
    runs: list[RunCost]
    steps: list[StepCost]
    disk_bytes: float
    text_bytes: float | None
    memory_bytes: float
    speeds: Speeds

    @property
    def hours(self) -> float | None:
        """Wall-clock hours of the remaining runs."""
        seconds = [each.seconds for each in self.steps if each.seconds is not None]
        return sum(seconds) / 3600 if len(seconds) == len(self.steps) else None

    @property
    def matches(self) -> list[Match]:
        """How well the runs of equal aims match."""
        return match_runs([config for each in self.steps if each.step.name != "sweep" for config in each.step.planned])

    @property
    def train_flops(self) -> float:
        """FLOPs of all steps, finished runs included."""
        return sum(each.step.train_flops for each in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """What `moelab study --dry-run --json` prints."""
        return {
            "study": self.study.name,
            "executor": self.study.executor.kind,
            "workers": self.workers,
            "n_runs": sum(each.step.n_runs for each in self.steps),
            "n_done": sum(each.done for each in self.runs),
            "train_flops": self.train_flops,
            "hours": self.hours,
            "speed": self.speeds.origin,
            "speed_missing": self.speeds.missing,
            "disk_bytes": self.disk_bytes,
            "text_bytes": self.text_bytes,
            "memory_bytes": self.memory_bytes,
            "steps": [each.to_dict() for each in self.steps],
            "matching": [asdict(each) | {"spread": each.spread} for each in self.matches],
            "runs": [each.to_dict() for each in self.runs],
        }


def estimate(
    study: StudyConfig, out: str | Path, *, workers: int = 0, report: Callable[[str], None] | None = None
) -> Estimate:
    """Count a study and time a few steps of its shapes, writing nothing.

    Runs of the sweep and of stages are exact. Later steps are estimates where they wait for an outcome, as their notes
    state. Raises InputError for a study whose runs are not valid, MoelabError where memory does not hold the largest.
    """
    folder = StudyFolder(out)
    steps = study_steps(study, str(folder.data))
    configs = [config for step in steps for config in step.configs]
    dataset = _data(folder)
    speeds = measure(configs, folder.runs, dataset, report)
    done = _done(configs, folder, dataset)
    runs = [
        RunCost(
            step=step.name,
            config=config,
            flops=own_flops(config),
            seconds=0.0 if done[id(config)] else speeds.seconds(config, own_flops(config)),
            done=done[id(config)],
        )
        for step in steps
        for config in step.configs
    ]
    most = _workers(study, configs, workers or study.workers)
    text = _text(study, folder)
    return Estimate(
        study=study,
        workers=most,
        runs=runs,
        steps=[StepCost(step=step, seconds=_wall(step, runs, speeds, most)) for step in steps],
        disk_bytes=_disk(configs, steps, most) + (text or 0.0),
        text_bytes=text,
        memory_bytes=sum(sorted((run_memory(config) for config in configs), reverse=True)[:most]),
        speeds=speeds,
    )


def _data(folder: StudyFolder) -> Dataset | None:
    """The study's text where it is prepared already."""
    try:
        return Dataset.open(folder.data)
    except InputError:
        return None


def _done(configs: list[RunConfig], folder: StudyFolder, dataset: Dataset | None) -> dict[int, bool]:
    from moelab.training import resolve_run

    if dataset is None or not folder.runs.is_dir():
        return dict.fromkeys(map(id, configs), False)
    return {
        id(c): RunFolder(folder.runs / resolve_run(c, dataset, elsewhere=True, root=folder.runs).run_id).finished
        for c in configs
    }


def _workers(study: StudyConfig, configs: list[RunConfig], wanted: int) -> int:
    """As many as the executor would start; for a Ray cluster, which is not contacted, as many as this machine."""
    needs = Needs.of(configs)
    if study.executor.kind == "slurm":
        return slurm_workers(needs, study.executor, wanted)
    return local_workers(needs, study.executor, wanted)


def _wall(step: Step, runs: list[RunCost], speeds: Speeds, workers: int) -> float | None:
    """Seconds of a step: its runs assigned to free workers, most expensive first."""
    own = [run.seconds for run in runs if run.step == step.name]
    if step.unknown_runs:
        largest = max(runs, key=lambda run: run.flops)
        own += [speeds.seconds(largest.config, step.unknown_flops / step.unknown_runs)] * step.unknown_runs
    times = [seconds for seconds in own if seconds is not None]
    if len(times) < len(own):
        return None
    free = [0.0] * max(1, min(workers, len(times)))
    for seconds in sorted(times, reverse=True):
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _disk(configs: list[RunConfig], steps: list[Step], workers: int) -> float:
    """Bytes at the peak: the weights of every run, and the checkpoints of running ones (one being written)."""
    weights = [4.0 * count_parameters(config.final_model).params_total for config in configs]
    checkpoints = [
        _STATES[config.train.optimizer] * size * (config.train.keep_checkpoints + 1)
        for config, size in zip(configs, weights, strict=True)
    ]
    stay = [
        _STATES[config.train.optimizer] * size * len(config.train.keep_steps)
        for config, size in zip(configs, weights, strict=True)
    ]
    final = sum(step.unknown_runs for step in steps) * max(weights)
    return sum(weights) + final + sum(sorted(checkpoints, reverse=True)[:workers]) + sum(stay)


def _text(study: StudyConfig, folder: StudyFolder) -> float | None:
    """Bytes of the prepared text, or of its limit; None for unlimited text that is not prepared yet."""
    if folder.data.is_dir():
        return float(sum(path.stat().st_size for path in folder.data.iterdir() if path.is_file()))
    return None if study.data.max_tokens is None else 2.0 * 1.05 * study.data.max_tokens
