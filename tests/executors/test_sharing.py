"""How many runs share a device: what a trial measures, keeps and chooses."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moelab.errors import InputError, MoelabError
from moelab.executors import ExecutorConfig, Order, sharing
from moelab.executors.memory import shared_memory
from moelab.executors.options import job_memory
from moelab.executors.order import Needs, Sharing
from moelab.executors.ray import RayPool, ray_workers
from moelab.executors.sharing import Device, best, choose_sharing, shape_key, share_out, trial_shapes
from moelab.executors.slurm import SlurmPool, slurm_workers
from moelab.runs import RunConfig

Make = Callable[..., RunConfig]


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
