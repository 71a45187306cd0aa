"""The runs of a study, step by step, before training; estimated where a step waits for another's outcome."""

from dataclasses import dataclass
from typing import Any

from moelab.experiments.ladder import BRANCH_OF, BRANCH_STEP, TRUNK
from moelab.files import sha256_json
from moelab.runs import RunConfig, run_columns
from moelab.studies.build import preview
from moelab.studies.config import StudyConfig
from moelab.studies.text import check_names, check_plan, check_text, tokens_there


@dataclass(frozen=True, kw_only=True)
class Step:
    """Runs that may be trained in parallel, without those of an earlier step. `planned` are all, repeats included.

    `note` states what is estimated. Of the last step, which trains the laws' recommendation, only the number of runs
    and their FLOPs are known.
    """

    name: str
    configs: list[RunConfig]
    planned: list[RunConfig]
    note: str = ""
    unknown_runs: int = 0
    unknown_flops: float = 0.0

    @property
    def n_runs(self) -> int:
        return len(self.configs) + self.unknown_runs

    @property
    def train_flops(self) -> float:
        return sum(own_flops(config) for config in self.configs) + self.unknown_flops


def own_flops(config: RunConfig) -> float:
    """A run's training FLOPs; for a branch, without the steps of its trunk."""
    whole = float(run_columns(config)["train_flops"])
    branched = config.parent.step if config.parent is not None else int(config.labels.get(BRANCH_STEP, 0))
    return whole * (1 - branched / config.train.steps)


def study_steps(study: StudyConfig, data: str) -> list[Step]:
    """All steps that train. The choices of a sweep or a stage are replaced as in `preview`.

    Raises InputError for what cannot be used or met, including the text in the folder `data` and its length.
    """
    check_names(study)
    check_text(study, prepare=False)
    parts = preview(study, data)
    check_plan(study, parts, tokens_there(study, data))
    steps: list[Step] = []
    waits_for: list[str] = []
    seen: set[str] = set()
    for name, planned in parts.items():
        notes = [f"as if the middle value or first design of {', '.join(waits_for)} had won"] if waits_for else []
        new = _new(planned, seen)
        if len(new) < len(planned):
            notes.append(f"{len(planned) - len(new)} more are runs that are counted already")
        steps.append(Step(name=name, configs=new, planned=planned, note="; ".join(notes)))
        waits_for.append(name)
    if study.plan is not None and study.verify is not None:
        steps.append(_verify(study, steps[-1]))
    return steps


def _new(planned: list[RunConfig], seen: set[str]) -> list[RunConfig]:
    """The runs that are not in `seen`, each once, added to `seen`. A branch is identified by its trunk and step."""
    trunks = {config.labels[TRUNK]: config.identity() for config in planned if TRUNK in config.labels}
    found = []
    for config in planned:
        trunk, step = trunks.get(config.labels.get(BRANCH_OF, "")), config.labels.get(BRANCH_STEP)
        key = sha256_json([config.identity(), trunk, step])
        if key not in seen:
            seen.add(key)
            found.append(config)
    return found


def _verify(study: StudyConfig, runs: Step) -> Step:
    assert study.plan is not None
    assert study.verify is not None
    largest = max(float(run_columns(config)["train_flops"]) for config in runs.planned)
    number = (4 if study.verify.strict else 2) * len(study.verify.seeds)
    note = f"each at most {study.plan.flops_times:g} times the largest run's FLOPs; the fit decides the designs"
    flops = number * study.plan.flops_times * largest
    return Step(name="verify", configs=[], planned=[], note=note, unknown_runs=number, unknown_flops=flops)


def shape(config: RunConfig) -> str:
    """A key that is equal for runs of equal speed."""
    train = config.train
    key: dict[str, Any] = {
        "model": config.model.to_dict(),
        "train": [train.seq_len, train.batch_tokens, train.micro_batch, train.optimizer, train.precision],
        "where": [train.device, train.threads, train.dispatch, train.processes],
    }
    return str(key)
