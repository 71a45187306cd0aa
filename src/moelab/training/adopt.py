"""Unfinished runs that differ only in what the machine decided: found, named, and gone on from as runs of their own.

A run is named by its threads, precision, dispatch and kernels too, so another machine would begin it again from step 0.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from moelab.errors import InputError, MoelabError
from moelab.runs import RunConfig, RunFolder, find_runs
from moelab.runs.find import find_run, matching_runs
from moelab.runs.folder import CHECKPOINTS, CONFIG
from moelab.runs.train_config import AUTO, MACHINE
from moelab.training.checkpoint import newest_step

_MACHINE = {f"train.{name}" for name in MACHINE}
_MESH = "train.parallel"


@dataclass(frozen=True, kw_only=True)
class Kin:
    """An unfinished run, its newest whole checkpoint, and the fields in which it differs: name -> (its, ours)."""

    run_id: str
    step: int
    fields: dict[str, tuple[object, object]]

    def __str__(self) -> str:
        each = [f"{name} ({its} there, {ours} here)" for name, (its, ours) in self.fields.items()]
        return f"an unfinished run differs only in {', '.join(each)}: {self.run_id}, step {self.step:,}"


def find_kin(config: RunConfig, root: Path) -> list[Kin]:
    """The runs in `root` that `config` could adopt, the furthest first; none where its own run has begun."""
    if not root.is_dir() or RunFolder(root / config.run_id).exists:
        return []
    return _kin(config, root)


def _kin(config: RunConfig, root: Path) -> list[Kin]:
    found = []
    for folder in find_runs(root):
        if folder.finished or not (folder.path / CHECKPOINTS).is_dir():
            continue
        try:
            theirs = folder.load_config()
            step = newest_step(folder.path / CHECKPOINTS, folder.path.name, config.train.steps)
        except MoelabError:
            continue
        fields = _differences(_as_in(theirs, config), theirs)
        if step is not None and fields and fields <= _MACHINE:
            values = {name: (_value(theirs, name), _value(config, name)) for name in _shown(fields)}
            found.append(Kin(run_id=folder.path.name, step=step, fields=values))
    return sorted(found, key=lambda kin: -kin.step)


def adopt(config: RunConfig, root: Path, run: str, *, hold: bool = True) -> RunConfig:
    """The run that goes on from the newest checkpoint of another, which differs in what the machine decided.

    `run` is its id, the start of one, its name, or its folder in `root`; of several runs of that name, the one that
    `config` can go on from. Where that was done before, it is the same child again. Of several processes that train
    together one asks with `hold`. Raises InputError where there is nothing to go on from or
    something else differs, Busy while another process trains the run.
    """
    folder = _find(config, root, run)
    if folder.finished:
        raise InputError(f"--adopt: run {folder.path.name} is finished; there is nothing to go on with")
    theirs = folder.load_config()
    config = _as_in(theirs, config)
    before = _children(config, root, folder.path.name)
    if before:
        return before[0]
    differ = _differences(config, theirs)
    if not differ:
        raise InputError(f"--adopt: run {folder.path.name} is this run itself; leave --adopt out to go on with it")
    beyond = sorted(differ - _MACHINE)
    if beyond:
        raise InputError(
            f"--adopt: run {folder.path.name} differs in {', '.join(beyond)}; allowed: {', '.join(MACHINE)}"
        )
    with folder.hold() if hold else nullcontext():
        step = newest_step(folder.path / CHECKPOINTS, folder.path.name, config.train.steps)
    if step is None:
        raise InputError(f"--adopt: run {folder.path.name} holds no whole checkpoint")
    return config.replace(parent={"run": folder.path.name, "step": step, "adopted": True})


def _find(config: RunConfig, root: Path, run: str) -> RunFolder:
    """The run that is meant. Raises InputError where there is none in `root`, or where several are."""
    if (root / Path(run).name / CONFIG).is_file():
        return RunFolder(root / Path(run).name)
    found = matching_runs(run, root)
    if len(found) > 1:
        fitting = {kin.run_id for kin in _kin(config, root)}
        found = [folder for folder in found if folder.name in fitting]
    path = found[0] if len(found) == 1 else find_run(run, root)
    if path.parent.resolve() != root.resolve():
        raise InputError(f"--adopt: the run must lie in --out {root}, {path} does not")
    return RunFolder(path)


def _as_in(theirs: RunConfig, config: RunConfig) -> RunConfig:
    """The run as 0.1 would have it, where the other is of 0.1: without what was written into it as a later default."""
    if theirs.train.kernels != AUTO:
        return config
    return config.replace(train={**config.train.to_dict(), "muon_split": None})


def _differences(config: RunConfig, theirs: RunConfig) -> set[str]:
    """What two runs do not have in common, a mesh as a whole; that the other adopted a run before makes no
    difference."""
    if theirs.parent is not None and theirs.parent.adopted:
        theirs = theirs.replace(parent=None)
    return {".".join(name.split(".")[:2]) if name.startswith(_MESH) else name for name in config.differences(theirs)}


def _shown(fields: set[str]) -> list[str]:
    """The fields to name: the size of a mesh follows from it."""
    return sorted(fields - {"train.processes"} if _MESH in fields else fields)


def _children(config: RunConfig, root: Path, run: str) -> list[RunConfig]:
    """The runs in `root` that went on from `run` as `config` would."""
    found = []
    for folder in find_runs(root):
        if run not in (folder.path / "config.yaml").read_text(encoding="utf-8"):
            continue
        child = folder.load_config()
        adopted = child.parent is not None and child.parent.adopted and child.parent.run == run
        if adopted and not child.replace(parent=None).differences(config):
            found.append(child)
    return found


def _value(config: RunConfig, name: str) -> object:
    return getattr(config.train, name.removeprefix("train."))
