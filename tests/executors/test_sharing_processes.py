"""Real processes that share cores as they would a device: killed and resumed, measured, with unchanged records."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moelab.data import Dataset
from moelab.executors import Board, ExecutorConfig, run_all
from moelab.executors.order import Sharing
from moelab.executors.trial import steps_per_second
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import ALONE
from moelab.training import train_run

pytestmark = pytest.mark.slow
MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 0.01}}
Make = Callable[..., RunConfig]


@pytest.fixture
def runs(a_run: Make) -> list[RunConfig]:
    """Four runs of a few hundred steps."""
    return [a_run(MOE if seed % 2 else None, seed=seed, tokens=150 * 64, evaluations=2) for seed in range(4)]


def outcome(config: RunConfig, root: Path) -> tuple[Any, ...]:
    record = RunFolder(root / config.run_id).load_record()
    return record.loss, record.loss_curve, record.routing, record.weights_sha256


def the_same_as_alone(runs: list[RunConfig], tmp_path: Path, dataset: Dataset) -> None:
    for config in runs:
        train_run(config, tmp_path / "alone", dataset)
        assert outcome(config, tmp_path / "runs") == outcome(config, tmp_path / "alone")


def test_a_worker_killed_in_the_middle_of_its_turns(runs: list[RunConfig], tmp_path: Path, dataset: Dataset) -> None:
    """SIGKILL while it has four runs open: each goes on from its last checkpoint, and ends with the same weights."""
    killed: list[int] = []

    def kill(board: Board) -> None:
        if killed or len(board.running) < 4:
            return
        folders = [RunFolder(tmp_path / "runs" / run_id) for run_id in board.running]
        if all(list((folder.path / "checkpoints").glob("0*")) for folder in folders):
            claim = folders[0].claim
            assert claim is not None
            os.kill(claim.pid, signal.SIGKILL)
            killed.append(len(folders))

    executor = ExecutorConfig(share=4, checkpoint_seconds=0)
    found = run_all(runs, tmp_path / "runs", dataset.folder, executor=executor, workers=1, observe=kill)
    assert killed == [4]
    assert found.failed == {}
    assert sum(record.resumed for _, record in found.trained) == 4
    the_same_as_alone(runs, tmp_path, dataset)
    assert not [*tmp_path.rglob(".lease*"), *tmp_path.rglob(ALONE)]


def test_what_is_measured_is_kept_and_changes_no_record(a_run: Make, tmp_path: Path, dataset: Dataset) -> None:
    runs = [a_run(MOE, seed=seed) for seed in range(3)]
    lines: list[str] = []
    executor = ExecutorConfig(share="auto")
    found = run_all(runs, tmp_path / "runs", dataset.folder, executor=executor, workers=1, note=lines.append)
    assert found.failed == {}
    the_same_as_alone(runs, tmp_path, dataset)
    shapes = json.loads((tmp_path / "sharing.json").read_text())["shapes"]
    assert len(shapes) == 1
    rows = [row for shape in shapes.values() for row in shape["trials"]]
    assert {row["by"] for row in rows} == {"processes", "streams"}
    assert all(row["steps_per_second"] > 0 for row in rows)
    assert len(lines) == len(rows) + 1
    assert lines[-1].startswith("runs share a device: ")


def test_a_trial_that_fails_gives_the_reason_at_once(a_run: Make, dataset: Dataset, tmp_path: Path) -> None:
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "hash", "router_bias": True}
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"^[A-Za-z]+: "):
        steps_per_second(a_run({"moe": moe}), str(dataset.folder), Sharing(by="streams", runs=2), 0.1)
    assert time.monotonic() - began < 60
    assert threading.active_count() < 10
