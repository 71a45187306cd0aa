"""How many workers the cores and the memory allow, and the estimate of a run's memory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moelab.config import dump_yaml
from moelab.errors import MoelabError
from moelab.executors import ExecutorConfig
from moelab.executors.local import local_workers
from moelab.executors.memory import BASE_BYTES, control_group_memory, free_memory, run_memory
from moelab.executors.order import Needs
from moelab.machine import usable_cores
from moelab.model import build_model
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

    def test_the_estimate_holds_what_a_step_keeps(self, a_run: Make) -> None:
        """Weights, gradients and two moments, and all tensors that the backward pass needs: at most five times them."""
        config = a_run(model={"d_model": 64, "n_heads": 4, "d_ff": 256}, tokens=256, batch_tokens=256)
        model = build_model(config.model)
        tokens = torch.randint(0, config.model.vocab_size, (config.train.local_batch_size, config.train.seq_len))
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model.loss(tokens, tokens).total  # holds the graph, and with it what was kept
        state = 4 * 4 * sum(weight.numel() for weight in model.parameters())
        used = state + sum(kept.values()) - sum(kept.get(weight.data_ptr(), 0) for weight in model.parameters())
        assert loss.requires_grad
        assert used > 1.2 * state
        assert used < run_memory(config) - BASE_BYTES < 5 * used

    @pytest.mark.slow
    def test_the_estimate_is_near_the_measured_peak(self, a_run: Make, tmp_path: Path) -> None:
        config = a_run(model={"d_model": 64, "n_heads": 4, "d_ff": 256}, tokens=256, batch_tokens=256)
        (tmp_path / "run.yaml").write_text(dump_yaml(config.to_dict()))
        words = [sys.executable, "-m", "moelab", "train", "run.yaml", "--out", "runs"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)  # a process of its own has its own peak
        record = RunFolder.open(tmp_path / "runs" / config.run_id).load_record()
        assert 0.5 * record.peak_memory_bytes < run_memory(config) < 5 * record.peak_memory_bytes
