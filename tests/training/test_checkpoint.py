"""A checkpoint is whole or absent; a damaged one gives way to the one before it, with a note."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from moelab.errors import InputError, MoelabError
from moelab.training.checkpoint import load_newest, load_step, newest_step, save_checkpoint
from moelab.training.progress import Progress
from moelab.training.tensor_files import save_weights

RUN = "0123456789abcdef"


def save(folder: Path, step: int, value: float, keep: int = 2, run_id: str = RUN) -> None:
    progress = Progress(run_id=run_id, step=step, seconds=1.5, curve=[{"step": step, "loss": value}])
    save_checkpoint(folder, progress, {"w": torch.full((3, 2), value)}, {"w.m": torch.ones(2)}, keep=keep)


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, float(step))
    assert sorted(os.listdir(tmp_path)) == ["00000020", "00000030"]
    found, notes = load_newest(tmp_path, RUN)
    assert found is not None
    progress, model, optimizer, _ = found
    assert (progress.step, progress.seconds, progress.curve) == (30, 1.5, [{"step": 30, "loss": 30.0}])
    assert torch.equal(model["w"], torch.full((3, 2), 30.0))
    assert torch.equal(optimizer["w.m"], torch.ones(2))
    assert notes == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_gives_way(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 10, 1.0)
    save(tmp_path, 20, 2.0)
    path = tmp_path / "00000020" / name
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    found, notes = load_newest(tmp_path, RUN)
    assert found is not None
    assert found.progress.step == 10
    assert "00000020 is damaged" in notes[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"step": 27}, "state.json does not match its checksum"),
        ({"seconds": 9.0}, "state.json does not match its checksum"),
        ({"curve": []}, "state.json does not match its checksum"),
        ({"step": 27, "state_sha256": None}, "state.json is of step 27"),
        ({"sha256": []}, "state.json does not match its checksum"),
        ({"sha256": [], "state_sha256": None}, "is damaged"),
    ],
)
def test_an_edited_progress_gives_way(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    save(tmp_path, 10, 1.0)
    save(tmp_path, 20, 2.0)
    path = tmp_path / "00000020" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found, notes = load_newest(tmp_path, RUN)
    assert found is not None
    assert found.progress.step == 10
    assert "00000020 is damaged" in notes[0]
    assert complaint in notes[0]
    with pytest.raises(MoelabError, match="00000020 is damaged"):
        load_step(tmp_path, 20, RUN)


def test_a_checkpoint_from_before_run_ids_and_the_checksum_of_the_progress_still_loads(tmp_path: Path) -> None:
    save(tmp_path, 10, 1.0)
    path = tmp_path / "00000010" / "state.json"
    state = json.loads(path.read_text())
    del state["state_sha256"], state["run_id"], state["kernels"]
    path.write_text(json.dumps(state))
    found, notes = load_newest(tmp_path, RUN)
    assert notes == ["checkpoint 00000010 names no run (moelab 0.1): whether it is this run's is not checked"]
    assert found is not None
    assert found.progress.curve == [{"step": 10, "loss": 1.0}]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 10, 1.0)
    save(tmp_path, 20, 1.0, run_id="f" * 16)
    for load in (lambda: load_newest(tmp_path, RUN), lambda: load_step(tmp_path, 20, RUN)):
        with pytest.raises(InputError, match=f"00000020 is of run {'f' * 16}, not of run {RUN}; move it away"):
            load()


def test_the_newest_whole_step(tmp_path: Path) -> None:
    assert newest_step(tmp_path, RUN, 99) is None
    for step in (10, 20, 30):
        save(tmp_path, step, 1.0, keep=9)
    assert (newest_step(tmp_path, RUN, 99), newest_step(tmp_path, RUN, 30)) == (30, 20)
    (tmp_path / "00000030" / "model.safetensors").write_bytes(b"")
    assert newest_step(tmp_path, RUN, 99) == 20


def test_damaged_later_checkpoints_do_not_crowd_out_new_ones(tmp_path: Path) -> None:
    for step in (20, 30):
        save(tmp_path, step, 1.0)
        (tmp_path / f"{step:08d}" / "model.safetensors").write_bytes(b"")
    found, notes = load_newest(tmp_path, RUN)
    assert found is None
    assert len(notes) == 2
    save(tmp_path, 5, 1.0)
    assert os.listdir(tmp_path) == ["00000005"]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_newest(tmp_path, RUN) == (None, [])
    assert load_newest(tmp_path / "absent", RUN) == (None, [])


def test_a_half_written_checkpoint_is_swept_away(tmp_path: Path) -> None:
    save(tmp_path, 10, 1.0)
    (tmp_path / ".tmp-abc").mkdir()
    found, _ = load_newest(tmp_path, RUN)
    assert found is not None
    assert found.progress.step == 10
    assert os.listdir(tmp_path) == ["00000010"]


def test_a_full_disk_names_the_file(tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]) -> None:
    with pytest.raises(MoelabError) as caught, small_disk(1000):
        save_weights(tmp_path / "model.safetensors", {"w": torch.zeros(1000)})
    assert type(caught.value) is MoelabError
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'model.safetensors'}: ")
    assert "\n" not in str(caught.value)
    assert "too large" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot create the folder"):
        save(tmp_path / "file" / "checkpoints", 1, 1.0)
