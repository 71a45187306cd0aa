"""Runs that share a device have the records of runs alone, whatever happens to their neighbours."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from moelab.data import Dataset
from moelab.executors import ExecutorConfig, Order, Outcome, work
from moelab.executors.memory import shared_memory
from moelab.executors.worker import Worker
from moelab.runs import RunConfig
from moelab.runs.folder import ALONE
from moelab.training.turns import LiveRun

MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 0.01, "bias_update": 0.01}}
Make = Callable[..., RunConfig]
Act = Callable[[Order, str], dict[str, str]]
Train = Callable[..., Outcome]
Same = Callable[[list[RunConfig]], None]


@pytest.fixture
def mixed(a_run: Make) -> list[RunConfig]:
    """Runs of unequal lengths, kinds, optimisers and kernels."""
    return [
        a_run(),
        a_run(MOE, tokens=768),
        a_run(MOE, optimizer="muon", seed=1, evaluations=3),
        a_run({"d_model": 16}, kernels="torch", tokens=256),
        a_run(seed=2, precision="bf16"),
    ]


def open_at_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs were open at each step."""
    seen: list[int] = []
    inner = Worker._step

    def step(self: Worker, run_id: str) -> None:
        seen.append(len(self.live))
        inner(self, run_id)

    monkeypatch.setattr(Worker, "_step", step)
    return seen


def test_runs_in_turns_have_the_records_of_runs_alone(
    train: Train, mixed: list[RunConfig], same_as_alone: Same, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = open_at_once(monkeypatch)
    found = train(mixed)
    assert [config for config, _ in found.trained] == mixed
    assert {record.resumed for _, record in found.trained} == {0}
    assert max(seen) == 4
    same_as_alone(mixed)
    assert not [*tmp_path.rglob(".lease*"), *tmp_path.rglob(ALONE)]


def test_neighbours_of_a_diverged_and_of_a_failed_run(train: Train, a_run: Make, same_as_alone: Same) -> None:
    unbuildable = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "hash", "router_bias": True}}
    bad, wild = a_run(unbuildable), a_run(learning_rate=1e30, grad_clip=0)
    sound = [a_run(seed=seed) for seed in range(2)]
    found = train([bad, wild, *sound])
    assert found.failed == {bad.run_id: "model: moelab counts but cannot train a router bias of the router hash"}
    assert [record.status for _, record in found.trained] == ["diverged", "finished", "finished"]
    same_as_alone([wild, *sound])


class Killed(RuntimeError):
    """Stands for SIGKILL: nothing after it runs, leases included."""


def killed_after(steps: int, victim: str | None = None, times: int = 1) -> Act:
    """Workers of which the first `times` die in the middle of a turn (of the run `victim`), leaving everything as it
    is."""
    left, dead = iter(range(times)), []

    class Dying(Worker):
        done = 0

        def _step(self, run_id: str) -> None:
            super()._step(run_id)
            self.done += 1
            if self.done > steps and victim in (None, run_id) and next(left, None) is not None:
                dead.append(self)  # its leases stay, as its files do
                raise Killed("exit code -9")

        def _close(self) -> None:
            if self not in dead:
                super()._close()

    return lambda order, worker: Dying(order, worker).until_done()


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 22])
def test_a_killed_worker_costs_no_more_than_its_last_checkpoints(
    steps: int, train: Train, mixed: list[RunConfig], same_as_alone: Same
) -> None:
    found = train(mixed, killed_after(steps))
    assert found.failed == {}
    assert max(record.resumed for _, record in found.trained) == 1
    same_as_alone(mixed)


@pytest.mark.slow
def test_a_run_that_kills_its_workers_takes_no_neighbour_with_it(
    train: Train, a_run: Make, same_as_alone: Same
) -> None:
    runs = [a_run(seed=seed) for seed in range(4)]
    found = train(runs, killed_after(0, victim=runs[1].run_id, times=99))
    assert found.failed == {runs[1].run_id: "its worker died 5 times (exit code -9); is there enough memory?"}
    same_as_alone([runs[0], *runs[2:]])


def test_after_an_error_of_the_device_each_run_goes_on_alone(
    train: Train, a_run: Make, same_as_alone: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA error is reported in whichever run asks next, and the process computes nothing after it."""
    runs = [a_run(seed=seed) for seed in range(3)]
    inner, lost = LiveRun.step, getattr(torch, "AcceleratorError")  # noqa: B009
    workers: list[str] = []

    def step(self: LiveRun) -> bool:
        if self.config == runs[1]:
            raise lost("device-side assert triggered")
        return inner(self)

    def act(order: Order, worker: str) -> dict[str, str]:
        workers.append(worker)
        return work(order, worker)

    monkeypatch.setattr(LiveRun, "step", step)
    found = train(runs, act)
    assert found.failed == {runs[1].run_id: "AcceleratorError: device-side assert triggered"}
    assert len(workers) > 1
    monkeypatch.setattr(LiveRun, "step", inner)
    same_as_alone([runs[0], runs[2]])


def test_memory_holds_the_runs_that_are_open(train: Train, a_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [a_run(seed=seed) for seed in range(4)]
    seen = open_at_once(monkeypatch)
    room = 2.5 * shared_memory(runs[0])
    train(runs, lambda order, worker: work(replace(order, memory=room), worker))
    assert max(seen) == 2


def test_records_of_runs_that_shared_a_device_are_marked(train: Train, a_run: Make, dataset: Dataset) -> None:
    runs = [a_run(seed=seed) for seed in range(2)]
    assert [record.shared for _, record in train(runs).trained] == [2, 2]


def test_records_of_runs_alone_are_not_marked(train: Train, a_run: Make) -> None:
    assert [record.shared for _, record in train([a_run()], executor=ExecutorConfig()).trained] == [None]
