"""Runs that share a device have the records of runs alone, whatever happens to their neighbours; how many share it."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moelab.architecture import Shape, count_parameters
from moelab.architecture.layout import Layout
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.executors import ExecutorConfig, Order, Outcome, run_all, sharing, work
from moelab.executors import worker as worker_module
from moelab.executors.memory import WORKSPACE_BYTES, shared_memory
from moelab.executors.options import job_memory
from moelab.executors.order import Needs, Sharing
from moelab.executors.ray import RayPool, ray_workers
from moelab.executors.sharing import Device, best, choose_sharing, shape_key, share_out, trial_shapes
from moelab.executors.slurm import SlurmPool, slurm_workers
from moelab.executors.worker import Worker
from moelab.lease import Terms
from moelab.runs import RunConfig, RunFolder
from moelab.runs.folder import ALONE
from moelab.training import train_run
from moelab.training.turns import LiveRun

SHARED = ExecutorConfig(patience=1.0, checkpoint_seconds=0.0, share=4)
MOE = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 0.01, "bias_update": 0.01}}
Make = Callable[..., RunConfig]
Act = Callable[[Order, str], dict[str, str]]
Train = Callable[..., Outcome]


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


@pytest.fixture
def train(threads: Callable[..., None], dataset: Dataset, tmp_path: Path) -> Train:
    """run_all with threads that do `act`, four runs at a time."""

    def call(configs: list[RunConfig], act: Act = work, **options: Any) -> Outcome:
        threads(act)
        options = {"executor": SHARED, "workers": 1, **options}
        return run_all(configs, tmp_path / "runs", dataset.folder, **options)

    return call


def outcome(config: RunConfig, root: Path) -> dict[str, Any]:
    """A record without its times, its memory, how often it was interrupted and who shared its device."""
    record = RunFolder(root / config.run_id).load_record().to_dict()
    own = ("seconds", "started", "tokens_per_second", "peak_memory_bytes", "resumed", "shared")
    return {name: value for name, value in record.items() if name not in own}


def the_same_as_alone(configs: list[RunConfig], tmp_path: Path, dataset: Dataset) -> None:
    """Records hold losses, curves, routing statistics and the digest of the weights."""
    for config in configs:
        train_run(config, tmp_path / "alone", dataset)
        assert outcome(config, tmp_path / "runs") == outcome(config, tmp_path / "alone"), config.run_id


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
    train: Train, mixed: list[RunConfig], tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = open_at_once(monkeypatch)
    found = train(mixed)
    assert [config for config, _ in found.trained] == mixed
    assert {record.resumed for _, record in found.trained} == {0}
    assert max(seen) == 4
    the_same_as_alone(mixed, tmp_path, dataset)
    assert not [*tmp_path.rglob(".lease*"), *tmp_path.rglob(ALONE)]


def test_neighbours_of_a_diverged_and_of_a_failed_run(
    train: Train, a_run: Make, tmp_path: Path, dataset: Dataset
) -> None:
    unbuildable = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "hash", "router_bias": True}}
    bad, wild = a_run(unbuildable), a_run(learning_rate=1e30, grad_clip=0)
    sound = [a_run(seed=seed) for seed in range(2)]
    found = train([bad, wild, *sound])
    assert found.failed == {bad.run_id: "model: moelab counts but cannot train a router bias of the router hash"}
    assert [record.status for _, record in found.trained] == ["diverged", "finished", "finished"]
    the_same_as_alone([wild, *sound], tmp_path, dataset)


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
    steps: int, train: Train, mixed: list[RunConfig], tmp_path: Path, dataset: Dataset
) -> None:
    found = train(mixed, killed_after(steps))
    assert found.failed == {}
    assert max(record.resumed for _, record in found.trained) == 1
    the_same_as_alone(mixed, tmp_path, dataset)


@pytest.mark.slow
def test_a_run_that_kills_its_workers_takes_no_neighbour_with_it(
    train: Train, a_run: Make, tmp_path: Path, dataset: Dataset
) -> None:
    runs = [a_run(seed=seed) for seed in range(4)]
    found = train(runs, killed_after(0, victim=runs[1].run_id, times=99))
    assert found.failed == {runs[1].run_id: "its worker died 5 times (exit code -9); is there enough memory?"}
    the_same_as_alone([runs[0], *runs[2:]], tmp_path, dataset)


def test_after_an_error_of_the_device_each_run_goes_on_alone(
    train: Train, a_run: Make, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
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
    the_same_as_alone([runs[0], runs[2]], tmp_path, dataset)


def test_memory_holds_the_runs_that_are_open(train: Train, a_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [a_run(seed=seed) for seed in range(4)]
    seen = open_at_once(monkeypatch)
    room = 2.5 * shared_memory(runs[0])
    train(runs, lambda order, worker: work(replace(order, memory=room), worker))
    assert max(seen) == 2


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


@pytest.mark.parametrize("always", [False, True])
def test_too_little_memory_beside_neighbours_is_tried_alone(
    always: bool, train: Train, a_run: Make, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
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
    the_same_as_alone([run for run in runs if run.run_id not in found.failed], tmp_path, dataset)


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


def test_records_of_runs_that_shared_a_device_are_marked(train: Train, a_run: Make, dataset: Dataset) -> None:
    runs = [a_run(seed=seed) for seed in range(2)]
    assert [record.shared for _, record in train(runs).trained] == [2, 2]


def test_records_of_runs_alone_are_not_marked(train: Train, a_run: Make) -> None:
    assert [record.shared for _, record in train([a_run()], executor=ExecutorConfig()).trained] == [None]


def test_the_memory_of_a_run_on_a_gpu_is_the_exact_count(a_run: Make) -> None:
    config = a_run(MOE, precision="bf16", micro_batch=1)
    gpu = config.replace(train={**config.train.to_dict(), "device": "cuda", "kernels": "auto"})
    step = TrainingStep(micro_batch=1, seq_len=config.train.seq_len, precision="bf16")
    counted = device_memory(Shape.of(config.model), Layout(), step)
    own = 2 * count_parameters(config.model).params_trained
    assert shared_memory(gpu) == counted.total + counted.activations + counted.working + own + WORKSPACE_BYTES


class TestHowMany:
    """What a trial measures, keeps and chooses; its numbers are given."""

    @pytest.fixture
    def measured(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
        """The trials that were made. A run by streams is as fast as four together; processes take turns."""
        made: list[tuple[str, str, int]] = []

        def rate(config: RunConfig, data: str, shared: Sharing) -> float:
            made.append((config.name or "", shared.by, shared.runs))
            if shared.by == "processes":
                return 10.0 if shared.runs < 4 else 9.0
            if shared.runs == 8 and config.name == "large":
                raise RuntimeError("OutOfMemoryError: CUDA out of memory")
            return 20.0 * min(shared.runs, 4)

        monkeypatch.setattr(sharing, "steps_per_second", rate)
        return made

    @pytest.fixture
    def order(self, a_run: Make, tmp_path: Path) -> Order:
        sizes = {"small": 8, "middle": 16, "large": 32}
        runs = [a_run({"d_model": d}, seed=s).replace(name=name) for name, d in sizes.items() for s in range(4)]
        return Order(
            name="study", configs=[run.to_dict() for run in runs], root=str(tmp_path / "runs"), data=str(tmp_path),
            checkpoint_seconds=1, patience=1, needs=Needs.of(runs),
        )  # fmt: skip

    AUTO = ExecutorConfig(share="auto", memory=1e12)

    def test_the_number_with_the_most_runs_an_hour(
        self, order: Order, measured: list[tuple[str, str, int]], tmp_path: Path
    ) -> None:
        lines: list[str] = []
        assert choose_sharing(order, self.AUTO, lines.append) == Sharing(by="streams", runs=4)
        assert lines[-1].startswith("runs share a device: 4 at a time by streams, 8.00 times the runs an hour of one")
        assert [row for row in measured if row[0] == "small"] == [
            ("small", by, n) for by, counts in (("processes", (1, 2)), ("streams", (1, 2, 4, 8))) for n in counts
        ]
        known = json.loads((tmp_path / "sharing.json").read_text())
        rows = {entry["name"]: entry["trials"] for entry in known["shapes"].values()}
        assert rows["large"][-1]["failed"] == "OutOfMemoryError: CUDA out of memory"
        assert rows["small"][0] == {
            "by": "processes", "runs": 1, "steps_per_second": 10.0, "runs_per_hour": 3600 * 10.0 / 8,
        }  # fmt: skip

    def test_an_interrupted_trial_goes_on_where_it_stopped(
        self, order: Order, measured: list[tuple[str, str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = sharing.steps_per_second

        def interrupted(*call: Any) -> float:
            if len(measured) == 7:
                raise KeyboardInterrupt
            return inner(*call)

        with monkeypatch.context() as patched:
            patched.setattr(sharing, "steps_per_second", interrupted)
            with pytest.raises(KeyboardInterrupt):
                choose_sharing(order, self.AUTO)
        choose_sharing(order, self.AUTO)
        assert len(measured) == len(set(measured)) == 18
        choose_sharing(replace(order, configs=order.configs[:4]), self.AUTO)
        assert len(measured) == 18

    def test_a_failed_trial_is_tried_again_once_its_reason_may_be_gone(
        self, order: Order, measured: list[tuple[str, str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With other versions, or with memory for one more run; alone the failed one, and not at every resume."""
        failed = ("large", "streams", 8)

        def tried_with(free: float) -> list[tuple[str, str, int]]:
            before = len(measured)
            choose_sharing(order, ExecutorConfig(share="auto", memory=free))
            return measured[before:]

        assert failed in tried_with(1e12)
        assert tried_with(1e12) == []
        monkeypatch.setattr(sharing, "versions", lambda: {"moelab": "9.9", "torch": "9.9"})
        assert tried_with(1e12) == [failed]
        assert tried_with(1e12) == []
        needed = max(shared_memory(RunConfig.parse(plain)) for plain in order.configs)
        assert tried_with(1e12 + needed / 2) == []
        assert tried_with(1e12 + needed) == [failed]
        assert tried_with(1e12 + needed) == []
        path = tmp_path / "sharing.json"
        known = json.loads(path.read_text())
        for entry in known["shapes"].values():
            assert len({(row["by"], row["runs"]) for row in entry["trials"]}) == len(entry["trials"])
            for row in entry["trials"]:
                row.pop("with", None)
                row.pop("free", None)
        path.write_text(json.dumps(known))
        assert tried_with(1e12) == [failed], "nobody knows what it failed with"

    def test_another_device_is_measured_anew(
        self, order: Order, measured: list[tuple[str, str, int]], tmp_path: Path
    ) -> None:
        choose_sharing(order, self.AUTO)
        path = tmp_path / "sharing.json"
        path.write_text(path.read_text().replace('"device": "cpu', '"device": "other'))
        choose_sharing(order, self.AUTO)
        assert len(measured) == 36
        path.write_text("{")
        choose_sharing(order, self.AUTO)
        assert len(measured) == 54

    def test_no_more_than_memory_holds_are_tried(
        self, order: Order, measured: list[tuple[str, str, int]], a_run: Make
    ) -> None:
        largest = max(shared_memory(RunConfig.parse(plain)) for plain in order.configs)
        choose_sharing(order, ExecutorConfig(share="auto", share_by="streams", memory=3 * largest))
        assert [runs for name, by, runs in measured if (name, by) == ("large", "streams")] == [1, 2]
        assert [runs for name, by, runs in measured if (name, by) == ("large", "processes")] == [1]

    def test_a_number_is_taken_as_it_is(self, order: Order, measured: list[tuple[str, str, int]]) -> None:
        assert choose_sharing(order, ExecutorConfig(share=3)) == Sharing(by="streams", runs=3)
        assert choose_sharing(order, ExecutorConfig(share=3, share_by="processes")) == Sharing(runs=3)
        assert choose_sharing(order, ExecutorConfig()) == Sharing(), "a CPU's runs share nothing unless asked to"
        assert measured == []

    def test_cuda_is_measured_by_default(
        self, order: Order, measured: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Device, "of", lambda cuda, memory: Device(name="H100", free=8e10, mps=not cuda))
        cuda = replace(order, needs=replace(order.needs, cuda=True))
        assert choose_sharing(cuda, ExecutorConfig()) == Sharing(by="streams", runs=4)
        assert choose_sharing(replace(cuda, configs=cuda.configs[:1]), ExecutorConfig()) == Sharing()
        assert choose_sharing(cuda, ExecutorConfig(kind="slurm")) == Sharing()

    def test_runs_of_several_processes_share_nothing(
        self, order: Order, measured: list[tuple[str, str, int]], a_run: Make
    ) -> None:
        runs = [a_run(processes=2, seed=seed).to_dict() for seed in range(3)]
        assert choose_sharing(replace(order, configs=runs), self.AUTO) == Sharing()
        assert measured == []

    def test_the_best_of_several_shapes(self) -> None:
        small = {"processes": {1: 10.0, 2: 12.0, 4: 11.0}, "streams": {1: 20.0, 2: 40.0, 4: 80.0, 8: 90.0}}
        large = {"processes": {1: 10.0}, "streams": {1: 11.0, 2: 10.0}}
        assert best([small])[0] == Sharing(by="streams", runs=8)  # type: ignore[list-item]
        chosen, gain = best([small, large])  # type: ignore[list-item]
        assert (chosen, gain) == (Sharing(by="streams", runs=8), pytest.approx(3.0))
        assert best([large])[0] == Sharing(by="streams", runs=1)  # type: ignore[list-item]

    def test_shapes_are_the_largest_the_middle_and_the_smallest(self, a_run: Make) -> None:
        runs = [a_run({"d_model": d}, seed=seed, learning_rate=0.1 / d) for d in (8, 16, 24, 32) for seed in (0, 1)]
        assert [config.model.d_model for config in trial_shapes(runs)] == [32, 24, 8]
        assert trial_shapes(runs[:2]) == [runs[1]]
        assert len({shape_key(config) for config in runs}) == 4

    def test_workers_of_one_gpu_share_its_memory_out(self, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sharing, "cuda_devices", lambda: 2)
        cuda = replace(order, needs=replace(order.needs, cuda=True))
        shared = [share_out(cuda, Sharing(by="streams", runs=8), ExecutorConfig(), workers) for workers in (1, 2, 5)]
        assert [each.beside for each in shared] == [1, 1, 3]
        assert [each.sharing.runs for each in shared] == [8, 6, 3]
        assert {each.memory for each in shared} == {None}

    @pytest.mark.parametrize("kind", ["slurm", "ray"])
    @pytest.mark.parametrize("own", [None, 7e9])
    def test_a_job_elsewhere_has_the_memory_of_its_runs(
        self, order: Order, kind: str, own: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is free on the machine that submits it is not its memory."""
        monkeypatch.setattr(sharing, "free_memory", lambda: 1.0)
        executor = ExecutorConfig.parse({"kind": kind, "share": 4, **({} if own is None else {"memory": own})})
        for workers, runs in ((3, 4), (6, 2), (12, 1)):
            job = share_out(order, choose_sharing(order, executor), executor, workers)
            assert job.sharing.turns == runs
            assert job.memory == job_memory(job, executor) == runs * (own or order.needs.memory)
            needed = sum(sorted(shared_memory(RunConfig.parse(plain)) for plain in order.configs)[-runs:])
            assert needed <= job.memory

    def test_a_slurm_job_asks_for_its_runs_memory(self, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[dict[str, Any]] = []

        class Executor:
            def __init__(self, **_: Any) -> None: ...

            def update_parameters(self, **parameters: Any) -> None:
                asked.append(parameters)

            def submit(self, *_: Any) -> None: ...

        monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
        executor = ExecutorConfig(kind="slurm", cluster="local", share=4, memory=7e9)
        pool = SlurmPool(order, executor)
        assert slurm_workers(order.needs, executor, 0) == 3
        pool.order = share_out(order, choose_sharing(order, executor), executor, 3)
        pool.start("worker")
        assert asked[-1]["mem_gb"] == 28.0
        assert slurm_workers(order.needs, ExecutorConfig(kind="slurm"), 0) == 12

    def test_a_ray_task_asks_for_its_runs_memory(self, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[dict[str, Any]] = []

        class Task:
            def options(self, **options: Any) -> "Task":
                asked.append(options)
                return self

            def remote(self, *_: Any) -> None: ...

        there = {"CPU": 64.0, "memory": 30e9}
        ray = SimpleNamespace(remote=lambda _: Task(), cluster_resources=lambda: there)
        monkeypatch.setitem(sys.modules, "ray", ray)
        executor = ExecutorConfig(kind="ray", share=4, memory=7e9)
        pool = RayPool(order, executor)
        assert ray_workers(order.needs, executor, 0) == 3
        pool.order = share_out(order, choose_sharing(order, executor), executor, 3)
        pool.start("worker")
        assert asked[-1]["memory"] == 28_000_000_000
        there["memory"] = 20e9
        with pytest.raises(
            MoelabError, match=r"a job of 4 runs \(share: 4\) needs about 28 GB, the Ray cluster has 20"
        ):
            ray_workers(order.needs, executor, 0)

    def test_tasks_that_have_half_a_gpu_share_its_memory(self, order: Order) -> None:
        cuda = replace(order, needs=replace(order.needs, cuda=True))
        executor = ExecutorConfig(kind="ray", share=2, gpus=0.5)
        assert share_out(cuda, Sharing(by="streams", runs=2), executor, 4).beside == 2
        assert share_out(cuda, Sharing(by="streams", runs=2), ExecutorConfig(kind="slurm"), 4).beside == 1

    def test_every_worker_gets_its_share(self, order: Order) -> None:
        many, few = (share_out(order, Sharing(by="streams", runs=8), self.AUTO, n) for n in (1, 4))
        assert (many.sharing.runs, many.memory) == (8, 1e12)
        assert (few.sharing.runs, few.memory) == (3, 2.5e11)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"share": 0}, "share"),
        ({"share": 65}, "share"),
        ({"share": "all"}, "share"),
        ({"share_by": "streams"}, "share_by: needs share, a number of runs or auto"),
        ({"kind": "ray", "share": "auto"}, "share: only the executor local measures it; allowed with ray: a number"),
        ({"kind": "slurm", "share": 2, "share_by": "processes"}, "share_by: processes need the executor local"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        ExecutorConfig.parse(options)
    assert "\n" not in str(caught.value)
