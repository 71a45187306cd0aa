"""Branched decays: a run that goes on from a checkpoint of another run, as if it had been trained so from the start.

One trunk at a constant learning rate then gives the losses at several D for the price of the decays (arXiv 2405.18392).
"""

from pathlib import Path

from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.runs import RunConfig, RunFolder, TrainConfig
from moelab.runs.folder import CHECKPOINTS
from moelab.runs.train_config import MACHINE
from moelab.training.checkpoint import Checkpoint, load_step
from moelab.training.schedule import learning_rate_at
from moelab.training.tensor_files import WHOLE, Files

_FREE = (
    "tokens",
    "schedule",
    "warmup_fraction",
    "warmup_steps",
    "decay_fraction",
    "decay_steps",
    "final_lr_fraction",
    "transition",
    "evaluations",
    "eval_tokens",
    "keep_checkpoints",
    "keep_steps",
    "verify_data",
)
"""Training fields in which a branch may differ from its parent: what they decide before the branch is compared."""


def load_parent(config: RunConfig, root: Path, dataset: Dataset, files: Files = WHOLE) -> Checkpoint:
    """The parent's checkpoint after exactly the step that `config` names, ready to go on from.

    The parent lies beside the branch, in `root`. Raises InputError where the branch is not a continuation of it (all
    that happened before must be what the branch would have done), MoelabError where it holds no such checkpoint.
    """
    assert config.parent is not None
    run, step = config.parent.run, config.parent.step
    folder = RunFolder(root / run)
    try:
        parent = RunFolder.open(folder.path).load_config()
    except InputError as error:
        raise InputError(f"parent.run: {error}") from None
    check_branch(config, parent, dataset)
    found = load_step(folder.path / CHECKPOINTS, step, run, files)
    if found is None:
        raise MoelabError(
            f"parent: run {run} holds no checkpoint of step {step}; train it with train.keep_steps naming {step} "
            "(that changes no run's name; remove the record of a finished run to train it again)"
        )
    found.progress.seconds, found.progress.resumed, found.progress.started = 0.0, -1, ""
    if config.parent.adopted:
        found.progress.notes.append(_adopted_note(config, parent))
    return found


def _adopted_note(config: RunConfig, parent: RunConfig) -> str:
    assert config.parent is not None
    names = [name for name in MACHINE if not _same(name, config.train, parent.train)]
    changes = [f"train.{name} {getattr(parent.train, name)} to {getattr(config.train, name)}" for name in names]
    return (
        f"goes on from step {config.parent.step} of run {config.parent.run}: {', '.join(changes) or 'nothing changed'}"
    )


def check_branch(config: RunConfig, parent: RunConfig, dataset: Dataset) -> None:
    """Raise InputError naming the first thing that the branch would have done otherwise before its first step."""
    assert config.parent is not None
    step, ours, theirs = config.parent.step, config.train, parent.train
    if config.model != parent.model:
        raise InputError(f"parent: the model is not that of run {config.parent.run}")
    if _text(config, dataset) != _text(parent, dataset):
        raise InputError(f"parent: data differs from that of run {config.parent.run} (manifest_hash, unique_tokens)")
    for name in type(ours).model_fields:
        free = name in _FREE or (config.parent.adopted and name in MACHINE)
        if not free and not _same(name, ours, theirs):
            raise InputError(f"parent: train.{name} is {getattr(ours, name)}, the parent's is {getattr(theirs, name)}")
    if step > theirs.steps:
        raise InputError(f"parent.step: must be at most the parent's {theirs.steps} steps, got {step}")
    for early in range(step):
        mine, its = learning_rate_at(early, ours), learning_rate_at(early, theirs)
        if mine != its:
            raise InputError(
                f"parent: at step {early} the learning rate would be {mine:g}, the parent's was {its:g}; before step "
                f"{step} they must be equal (give both the same warmup_steps, and decay_steps of "
                f"{ours.steps - step} to the branch)"
            )
    if _switch_before(config) != _switch_before(parent, step):
        raise InputError(f"parent: the transitions differ before step {step}")


def _same(name: str, ours: TrainConfig, theirs: TrainConfig) -> bool:
    """Whether a field means the same in both; a config of 0.1 leaves the kernels open, and split no matrices."""
    mine, its = getattr(ours, name), getattr(theirs, name)
    if name == "muon_split":
        return bool(mine) == bool(its)
    return bool(mine == its or (name == "kernels" and "auto" in (mine, its)))


def _text(config: RunConfig, dataset: Dataset) -> tuple[str | None, int]:
    whole = (len(dataset.train) - 1) // config.train.seq_len * config.train.seq_len
    return config.data.manifest_hash, config.data.unique_tokens or whole


def _switch_before(config: RunConfig, step: int | None = None) -> int | None:
    if step is None:
        step = config.parent.step if config.parent else 0
    switch = config.train.switch_step
    return switch if switch is not None and switch < step else None
