"""Checkpoints that a kill cannot spoil: a folder per step, checksummed, renamed into place, the last few kept.

Only safetensors and JSON are read back, so a checkpoint from a stranger cannot run code.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moelab.errors import MoelabError
from moelab.files import make_folder, sha256_file, write_json, write_with

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(kw_only=True)
class Progress:
    """Where a run stands, besides its tensors."""

    step: int = 0
    seconds: float = 0.0
    resumed: int = 0
    recent_losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(
    folder: Path, progress: Progress, model: dict[str, Tensor], optimizer: dict[str, Tensor], keep: int = 2
) -> Path:
    """Write `folder/STEP` whole or not at all, then drop all but the newest `keep`.

    Raises MoelabError (a full disk, an unwritable folder); the older checkpoints are untouched then.
    """
    make_folder(folder)
    target = folder / f"{progress.step:08d}"
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    try:
        save_file(_contiguous(model), temporary / _MODEL)
        save_file(_contiguous(optimizer), temporary / _OPTIMIZER)
        for name in (_MODEL, _OPTIMIZER):
            _sync(temporary / name)
        sums = {name: sha256_file(temporary / name) for name in (_MODEL, _OPTIMIZER)}
        write_json(temporary / _STATE, {"sha256": sums, **asdict(progress)})
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise MoelabError(f"checkpoint: cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor], list[str]] | None:
    """The newest whole checkpoint: (progress, model, optimizer, complaints about damaged newer ones), or None."""
    complaints: list[str] = []
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for path in reversed(_steps(folder)):
        try:
            state = _checked_state(path)
            return Progress(**state), load_file(path / _MODEL), load_file(path / _OPTIMIZER), complaints
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            complaints.append(f"checkpoint {path.name} is damaged ({error}); using the one before it")
    return None


def save_weights(path: Path, model: dict[str, Tensor]) -> None:
    """Write a model's weights atomically as safetensors."""
    write_with(path, lambda temporary: save_file(_contiguous(model), temporary))


def _checked_state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / _STATE).read_text(encoding="utf-8"))
    for name, expected in state.pop("sha256").items():
        if sha256_file(path / name) != expected:
            raise ValueError(f"{name} does not match its checksum")
    return state


def _steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _sync(path: Path) -> None:
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
