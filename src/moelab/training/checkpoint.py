"""Checkpoints that a kill cannot spoil: a folder per step, checksummed, renamed into place, the last few kept.

Only safetensors and JSON are read back, so a checkpoint from a stranger cannot run code.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moelab.errors import InputError, MoelabError
from moelab.files import make_folder, sha256_file, sha256_json, write_json, write_with
from moelab.training.distributed_files import read_whole, split_states
from moelab.training.processes import World

_MODEL, _OPTIMIZER, _ROUTING, _STATE = "model.safetensors", "optimizer.safetensors", "routing.safetensors", "state.json"
_OWN_SUM = "state_sha256"
"""Over everything else in the state, as the checksums there are over the tensors. Older checkpoints have none."""


@dataclass(kw_only=True)
class Progress:
    """Where a run stands, besides its tensors.

    `run_id` names the run and `kernels` what computed it, both empty in checkpoints of 0.1. `started` is when the run
    began, empty where another version began it. `spikes` are the steps whose loss jumped; `evaluation` the last one;
    `notes` what people should know of the run. Gradient norms are those before clipping; `idle_expert_steps` counts
    Muon's steps on experts without a token, of all `expert_steps`.
    """

    run_id: str = ""
    kernels: str = ""
    step: int = 0
    seconds: float = 0.0
    started: str = ""
    resumed: int = 0
    recent_losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    first_norms: list[float] = field(default_factory=list)
    recent_norms: list[float] = field(default_factory=list)
    expert_steps: int = 0
    idle_expert_steps: int = 0
    evaluation: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


class Checkpoint(NamedTuple):
    """What was saved. `routing` holds what the last evaluation chose."""

    progress: Progress
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    routing: dict[str, Tensor]


class Files:
    """How a checkpoint's tensors are written and read: whole ones in two files, by one process."""

    everyone = World()

    def write(self, folder: Path, model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> dict[str, str]:
        """Write them into a folder; the SHA-256 of each file by its name."""
        files = {_MODEL: model, _OPTIMIZER: optimizer}
        for name, tensors in files.items():
            save_file(_contiguous(tensors), folder / name)
        return {name: sync_and_sum(folder / name) for name in files}

    def read(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The model's and the optimiser's tensors, whole, whatever wrote them."""
        if (folder / _MODEL).exists():
            return load_file(folder / _MODEL), load_file(folder / _OPTIMIZER)
        return split_states(read_whole(folder))


WHOLE = Files()


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: dict[str, Tensor],
    optimizer: dict[str, Tensor],
    routing: dict[str, Tensor] | None = None,
    *,
    keep: int = 2,
    keep_steps: Collection[int] = (),
    files: Files = WHOLE,
) -> Path:
    """Write `folder/STEP` whole or not at all, then drop all but the newest `keep` and those of `keep_steps`.

    Later ones go too: the run fell behind them because they were damaged, and they must not crowd out this one.
    Where processes hold parts of the tensors (`files`), all of them call this. Raises MoelabError (a full disk, an
    unwritable folder); the older checkpoints are untouched then.
    """
    target, everyone = folder / f"{progress.step:08d}", files.everyone
    temporary = everyone.first(lambda: _temporary(folder))
    try:
        sums = files.write(temporary, model, optimizer)
        everyone.first(lambda: _seal(temporary, target, progress, sums, routing))
    except (OSError, SafetensorError) as error:
        raise MoelabError(f"checkpoint: cannot write {target}: {error}") from error
    finally:
        if everyone.main:
            shutil.rmtree(temporary, ignore_errors=True)
    if everyone.main:
        _drop_others(folder, progress.step, keep, keep_steps)
    return target


def _temporary(folder: Path) -> Path:
    make_folder(folder)
    return Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))


def _seal(
    temporary: Path, target: Path, progress: Progress, sums: dict[str, str], routing: dict[str, Tensor] | None
) -> None:
    """Add what one process writes, then rename the folder into place."""
    try:
        if routing:
            save_file(_contiguous(routing), temporary / _ROUTING)
            sums = {**sums, _ROUTING: sync_and_sum(temporary / _ROUTING)}
        state = {"sha256": sums, **asdict(progress)}
        write_json(temporary / _STATE, {_OWN_SUM: sha256_json(state), **state})
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise MoelabError(f"checkpoint: cannot write {target}: {error}") from error


def _drop_others(folder: Path, step: int, keep: int, keep_steps: Collection[int]) -> None:
    passing = [path for path in _steps(folder) if int(path.name) not in keep_steps]
    later = [path for path in passing if int(path.name) > step]
    for gone in (*passing[: len(passing) - len(later)][:-keep], *later):
        shutil.rmtree(gone, ignore_errors=True)


def drop_checkpoints(folder: Path, keep_steps: Collection[int] = ()) -> None:
    """Remove what only an unfinished run needs: all checkpoints but those of `keep_steps`."""
    for path in _steps(folder):
        if int(path.name) not in keep_steps:
            shutil.rmtree(path, ignore_errors=True)
    if folder.is_dir() and not _steps(folder):
        shutil.rmtree(folder, ignore_errors=True)


def load_step(folder: Path, step: int, run_id: str, files: Files = WHOLE) -> Checkpoint | None:
    """The run's checkpoint of that step, None where there is none.

    Raises MoelabError where it is damaged, InputError where it is another run's.
    """
    path = folder / f"{step:08d}"
    state = files.everyone.first(lambda: _state_of_step(path, run_id))
    return None if state is None else _load(path, state, files)


def _state_of_step(path: Path, run_id: str) -> dict[str, Any] | None:
    try:
        return _checked_state(path, run_id) if path.is_dir() else None
    except _DAMAGE as error:
        raise MoelabError(f"checkpoint: {path} is damaged ({error})") from None


def load_newest(folder: Path, run_id: str, files: Files = WHOLE) -> tuple[Checkpoint | None, list[str]]:
    """The run's newest whole checkpoint, or None; and notes for people: on each damaged one that is newer, and on one
    that names no run (moelab 0.1).

    Raises InputError where a checkpoint is another run's.
    """
    path, state, notes = files.everyone.first(lambda: _newest(folder, run_id))
    return None if path is None else _load(path, state, files), notes


def _newest(folder: Path, run_id: str) -> tuple[Path | None, dict[str, Any], list[str]]:
    """Where it lies, its state, and the notes."""
    damaged: list[str] = []
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for path in reversed(_steps(folder)):
        try:
            state = _checked_state(path, run_id)
            Progress(**state)
        except _DAMAGE as error:
            damaged.append(f"checkpoint {path.name} is damaged ({error})")
            continue
        notes = [f"{each}; using the one before it" for each in damaged]
        if not state.get("run_id"):
            notes.append(f"checkpoint {path.name} names no run (moelab 0.1): whether it is this run's is not checked")
        return path, state, notes
    return None, {}, [f"{each}; no other is left: starting again" for each in damaged]


def save_weights(path: Path, model: dict[str, Tensor]) -> str:
    """Write a model's weights atomically as safetensors; returns the file's SHA-256.

    Raises MoelabError naming the file that cannot be written.
    """
    try:
        write_with(path, lambda temporary: save_file(_contiguous(model), temporary))
    except SafetensorError as error:  # a full disk, among others
        raise MoelabError(f"cannot write {path}: {error}") from error
    return sha256_file(path)


def newest_step(folder: Path, run_id: str, below: int) -> int | None:
    """The step of the run's newest whole checkpoint before step `below`; None without one.

    Raises InputError where a checkpoint is another run's.
    """
    for path in reversed(_steps(folder)):
        with suppress(*_DAMAGE):
            if int(path.name) < below:
                _checked_state(path, run_id)
                return int(path.name)
    return None


_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


def _load(path: Path, state: dict[str, Any], files: Files) -> Checkpoint:
    routing = load_file(path / _ROUTING) if (path / _ROUTING).exists() else {}
    model, optimizer = files.read(path)
    weights = {name: tensor for name, tensor in model.items() if name not in routing}  # all files were read as one
    return Checkpoint(Progress(**state), weights, optimizer, routing)


def _checked_state(path: Path, run_id: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / _STATE).read_text(encoding="utf-8"))
    own = state.pop(_OWN_SUM, None)
    if own is not None and own != sha256_json(state):
        raise ValueError(f"{_STATE} does not match its checksum")
    if state["step"] != int(path.name):
        raise ValueError(f"{_STATE} is of step {state['step']}")
    for name, expected in state.pop("sha256").items():
        if sha256_file(path / name) != expected:
            raise ValueError(f"{name} does not match its checksum")
    owner = state.get("run_id")
    if owner and owner != run_id:
        raise InputError(f"checkpoint: {path} is of run {owner}, not of run {run_id}; move it away")
    return state


def _steps(folder: Path) -> list[Path]:
    """The checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def sync_and_sum(path: Path) -> str:
    """The SHA-256 of a file that is on the disk now."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
    return sha256_file(path)
