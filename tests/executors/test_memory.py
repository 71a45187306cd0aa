"""How many workers the cores and the memory allow, and the estimate of a run's memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moelab.config import dump_yaml
from moelab.errors import MoelabError
from moelab.executors import ExecutorConfig
from moelab.executors.local import local_workers
from moelab.executors.memory import control_group_memory, free_memory, run_memory
from moelab.executors.order import Needs
from moelab.machine import usable_cores
from moelab.runs import RunConfig, RunFolder

Make = Callable[..., RunConfig]


class TestMemory:
    NEEDS = Needs(n_runs=8, cores=1, memory=int(1e9), cuda=False)

    def test_workers_are_as_many_as_fit(self) -> None:
        assert local_workers(self.NEEDS, ExecutorConfig(memory=3.5e9), 8) == 3

    def test_a_run_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(MoelabError, match="largest run needs about 1 GB, 500 MB are free"):
            local_workers(self.NEEDS, ExecutorConfig(memory=5e8), 2)

    def test_a_ray_cluster_must_have_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ray = pytest.importorskip("ray")
        from moelab.executors.ray import ray_workers

        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "memory": 5e8})
        assert ray_workers(Needs(n_runs=8, cores=2, memory=1, cuda=False), ExecutorConfig(kind="ray"), 0) == 4
        with pytest.raises(MoelabError, match="needs about 1 GB, the Ray cluster has 500 MB"):
            ray_workers(self.NEEDS, ExecutorConfig(kind="ray"), 0)
        with pytest.raises(MoelabError, match="no place for a run: 16 cores"):
            ray_workers(Needs(n_runs=8, cores=16, memory=1, cuda=False), ExecutorConfig(kind="ray"), 0)

    def test_runs_with_threads_get_fewer_workers(self) -> None:
        needs = Needs(n_runs=8, cores=usable_cores(), memory=1, cuda=False)
        assert local_workers(needs, ExecutorConfig(), 0) == 1

    def test_limits_of_control_groups_count(self, tmp_path: Path) -> None:
        (tmp_path / "memory.max").write_text("1000\n")
        (tmp_path / "memory.current").write_text("900\n")
        (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
        assert control_group_memory(tmp_path) == 400.0
        (tmp_path / "memory.max").write_text("max\n")
        assert control_group_memory(tmp_path) is None
        assert free_memory() != 0

    def test_the_estimate_is_near_the_measured_peak(self, a_run: Make, tmp_path: Path) -> None:
        config = a_run(model={"d_model": 64, "n_heads": 4, "d_ff": 256}, tokens=256, batch_tokens=256)
        (tmp_path / "run.yaml").write_text(dump_yaml(config.to_dict()))
        words = [sys.executable, "-m", "moelab", "train", "run.yaml", "--out", "runs"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)  # a process of its own has its own peak
        record = RunFolder.open(tmp_path / "runs" / config.run_id).load_record()
        assert 0.5 * record.peak_memory_bytes < run_memory(config) < 5 * record.peak_memory_bytes
