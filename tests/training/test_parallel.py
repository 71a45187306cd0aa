"""Two processes train the same run as one, up to the order of additions; their failures are reported in one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moelab.config import dump_yaml
from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.runs import RunFolder
from moelab.training import train_run

# With so large an epsilon AdamW moves in proportion to the gradient, so equal weights mean equal gradients.
OPTIONS = {"tokens": 6 * 128, "batch_tokens": 128, "epsilon": 1.0, "learning_rate": 0.5, "grad_clip": 0}
MOE: dict[str, Any] = {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 1.0, "z_loss": 0.1}
MOT = {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "mixture_of_tokens", "group_size": 2}


def test_a_batch_is_shared_out_evenly(make_run: Any) -> None:
    with pytest.raises(InputError, match="processes: must divide the 8 sequences of a batch, got 3"):
        make_run(processes=3, **OPTIONS)
    with pytest.raises(InputError, match="micro_batch: must divide the 4 sequences of each process"):
        make_run(processes=2, micro_batch=8, **OPTIONS)
    assert make_run(processes=2, **OPTIONS).run_id != make_run(**OPTIONS).run_id


def test_one_process_of_torchrun_starts_no_others(
    make_run: Any, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torchrun a run starts its processes itself; under it, those that were started must be the run's."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="processes: the run wants 2 processes, but 1 were started"):
        train_run(make_run(processes=2, **OPTIONS), tmp_path, dataset)


@pytest.mark.dist
@pytest.mark.parametrize(
    ("moe", "train"),
    [
        (MOE, {}),
        (MOE, {"micro_batch": 2}),
        ({**MOE, "bias_update": 0.01}, {"micro_batch": 1}),
        (MOT, {"transition": {"at": 0.5}}),
    ],
    ids=["one piece", "accumulated", "bias", "transition"],
)
def test_two_processes_give_the_numbers_of_one(
    make_run: Any, dataset: Dataset, tmp_path: Path, moe: dict[str, Any], train: dict[str, Any]
) -> None:
    alone, both = (make_run({"moe": moe}, processes=n, **OPTIONS, **train) for n in (1, 2))
    one, two = (train_run(config, tmp_path, dataset) for config in (alone, both))
    assert one.loss == pytest.approx(two.loss, abs=1e-5)
    assert one.train_loss == pytest.approx(two.train_loss, abs=1e-5)
    weights, others = (load_file(tmp_path / c.run_id / "model.safetensors") for c in (alone, both))
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=2e-5, rtol=1e-4, msg=name)


@pytest.mark.dist
def test_a_refusal_in_a_process_is_told(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run(processes=2, **OPTIONS)
    with RunFolder.create(tmp_path, config).hold(), pytest.raises(MoelabError, match="another process is training"):
        train_run(config, tmp_path, dataset)
    assert train_run(config, tmp_path, dataset).status == "finished"


@pytest.mark.dist
def test_torchrun(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run({"moe": MOE}, **OPTIONS)
    plain = {**config.to_dict(), "train": {**config.train.to_dict(), "dispatch": "auto"}}
    (tmp_path / "run.yaml").write_text(dump_yaml(plain))
    words = ["torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "moelab"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "train", "run.yaml", "--out", "runs", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    two = make_run({"moe": MOE}, processes=2, **OPTIONS)
    record = RunFolder.open(tmp_path / "runs" / two.run_id).load_record()
    assert done.stdout.count('"run_id"') == 1
    assert record.loss == pytest.approx(train_run(config, tmp_path, dataset).loss, abs=1e-5)
