"""Runs that share a device have the records of runs alone, whatever happens to their neighbours; how many share it."""

import json
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
from moelab.errors import InputError
from moelab.executors import ExecutorConfig, Order, Outcome, run_all, sharing, work
from moelab.executors.memory import WORKSPACE_BYTES, shared_memory
from moelab.executors.order import Needs, Sharing
from moelab.executors.sharing import Device, best, choose_sharing, shape_key, share_out, trial_shapes
from moelab.executors.worker import Worker
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
    """A record without its times, its memory and how often it was interrupted."""
    record = RunFolder(root / config.run_id).load_record().to_dict()
    own = ("seconds", "started", "tokens_per_second", "peak_memory_bytes", "resumed")
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


@pytest.mark.parametrize("steps", [0, 22])
def test_a_killed_worker_costs_no_more_than_its_last_checkpoints(
    steps: int, train: Train, mixed: list[RunConfig], tmp_path: Path, dataset: Dataset
) -> None:
    found = train(mixed, killed_after(steps))
    assert found.failed == {}
    assert max(record.resumed for _, record in found.trained) == 1
    the_same_as_alone(mixed, tmp_path, dataset)


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
