"""Memory of runs that share a device: what is counted for those that are open, and what happens where it is short."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.architecture import Shape, count_parameters
from moelab.architecture.layout import Layout
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.data import Dataset
from moelab.executors import Order, Outcome
from moelab.executors import worker as worker_module
from moelab.executors.memory import WORKSPACE_BYTES, shared_memory
from moelab.executors.order import Needs, Sharing
from moelab.executors.worker import Worker
from moelab.lease import Terms
from moelab.runs import RunConfig, RunFolder
from moelab.training.turns import LiveRun

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 0.01, "bias_update": 0.01}}
Make = Callable[..., RunConfig]
Train = Callable[..., Outcome]
Same = Callable[[list[RunConfig]], None]


class TestDeviceMemory:
    """A worker of a GPU whose runs are opened and never step: nothing of theirs is allocated."""

    @pytest.fixture
    def taken(
        self, a_run: Make, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Any]:
        """A function of free memory, in runs, and of workers beside this one: the worker, ready to take runs."""
        runs = [a_run(seed=seed, device="cpu") for seed in range(4)]
        runs = [run.replace(train={**run.train.to_dict(), "device": "cuda"}) for run in runs]
        order = Order(
            name="study", configs=[run.to_dict() for run in runs], root=str(tmp_path / "runs"),
            data=str(dataset.folder),
            checkpoint_seconds=1, patience=1, needs=Needs.of(runs), sharing=Sharing(by="streams", runs=4),
        )  # fmt: skip

        class Open:
            def __init__(self, config: RunConfig) -> None:
                self.config = config

            def close(self) -> None: ...

        def begin(self: Worker, config: RunConfig) -> None:
            self._left.remove(config)
            self.live[config.run_id] = Open(config)

        def worker(room: float, beside: int = 1) -> Worker:
            monkeypatch.setattr(worker_module, "free_device_memory", lambda: room * shared_memory(runs[0]))
            return Worker(replace(order, beside=beside), "worker")

        monkeypatch.setattr(Worker, "_begin", begin)
        return worker

    @pytest.mark.parametrize(("room", "beside", "fitting"), [(1.2, 1, 1), (0.5, 1, 1), (2.1, 1, 2), (4.2, 2, 2)])
    def test_open_runs_take_what_was_counted_for_them(
        self, taken: Callable[..., Worker], room: float, beside: int, fitting: int
    ) -> None:
        worker = taken(room, beside)
        for _ in range(3):
            worker._looked = -float("inf")
            worker._take()
            assert len(worker.live) == fitting

    def test_what_runs_that_ended_gave_back_counts(self, taken: Callable[..., Worker]) -> None:
        worker = taken(2.1)
        worker._take()
        worker.live.clear()
        taken(3.1)
        worker._looked = -float("inf")
        worker._take()
        assert len(worker.live) == 2, "the last two of four"


def out_of_memory(victim: RunConfig, always: bool = False) -> tuple[Callable[[LiveRun], bool], list[int]]:
    """A step in which `victim` finds too little memory, the first time or always; how many ran beside it each time."""
    inner, tries = LiveRun.step, []

    def step(self: LiveRun) -> bool:
        if self.config == victim and (always or not tries):
            tries.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self)

    return step, tries


@pytest.mark.parametrize("always", [pytest.param(False, marks=pytest.mark.slow), True])
def test_too_little_memory_beside_neighbours_is_tried_alone(
    always: bool, train: Train, a_run: Make, same_as_alone: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [a_run(seed=seed) for seed in range(4)]
    step, tries = out_of_memory(runs[1], always)
    seen: list[tuple[str, int]] = []
    inner = Worker._step

    def noted(self: Worker, run_id: str) -> None:
        seen.append((run_id, len(self.live)))
        inner(self, run_id)

    with monkeypatch.context() as patched:
        patched.setattr(LiveRun, "step", step)
        patched.setattr(Worker, "_step", noted)
        found = train(runs)
    beside = [count for run_id, count in seen if run_id == runs[1].run_id]
    assert beside[0] == 4
    assert set(beside[1:]) == {1}
    if always:
        assert found.failed == {runs[1].run_id: "OutOfMemoryError: CUDA out of memory"}
        assert len(tries) == 2
    else:
        assert found.failed == {}
    same_as_alone([run for run in runs if run.run_id not in found.failed])


def test_too_little_memory_beside_another_worker_is_tried_when_it_is_gone(
    a_run: Make, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers of one GPU, a run each: the run waits until the other worker holds none."""
    runs = [a_run(seed=seed) for seed in range(2)]
    step, tries = out_of_memory(runs[1])
    order = Order(
        name="study", configs=[run.to_dict() for run in runs], root=str(tmp_path / "runs"), data=str(dataset.folder),
        checkpoint_seconds=1, patience=60, needs=Needs.of(runs), sharing=Sharing(by="processes", runs=2), beside=2,
    )  # fmt: skip
    other = RunFolder.create(tmp_path / "runs", runs[0])
    waits: list[int] = []
    with other.hold(Terms(holder="other", patience=60)) as _:
        held = Worker(order, "worker")
        monkeypatch.setattr(LiveRun, "step", step)
        held._take()
        held._step(runs[1].run_id)
        assert (len(tries), held.failures) == (1, {})
        held._take()
        assert held.live == {}, "the other worker still trains"
        monkeypatch.setattr(worker_module.time, "sleep", lambda seconds: waits.append(1))
        assert held._wait()
    assert waits == [1]
    assert held.until_done() == {}
    assert all(RunFolder(tmp_path / "runs" / run.run_id).finished for run in runs)


def test_the_memory_of_a_run_on_a_gpu_is_the_exact_count(a_run: Make) -> None:
    config = a_run(MOE, precision="bf16", micro_batch=1)
    gpu = config.replace(train={**config.train.to_dict(), "device": "cuda", "kernels": "auto"})
    step = TrainingStep(micro_batch=1, seq_len=config.train.seq_len, precision="bf16")
    counted = device_memory(Shape.of(config.model), Layout(), step)
    own = 2 * count_parameters(config.model).params_trained
    assert shared_memory(gpu) == counted.total + counted.activations + counted.working + own + WORKSPACE_BYTES
