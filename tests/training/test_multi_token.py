"""Runs with multi-token prediction: resumed to the same bits, cut into pieces to the same gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moelab.data import Dataset
from moelab.model import build_model
from moelab.runs import RunConfig, RunFolder
from moelab.training import Trainer, train_run

MODEL: dict[str, Any] = {
    "mtp_layers": 2,
    "moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "score": "sigmoid", "bias_update": 0.01},
}


@pytest.mark.parametrize("kills", [pytest.param([1], marks=pytest.mark.slow), [3, 6]])
def test_killed_and_resumed_equals_undisturbed(
    make_run: Any, undisturbed: Any, train_until: Any, dataset: Dataset, tmp_path: Path, kills: list[int]
) -> None:
    config = make_run(MODEL, optimizer="muon", tokens=12 * 64, mtp_loss=0.1)
    whole = undisturbed(config)
    straight = RunFolder.open(whole).load_record()
    for step in kills:
        train_until(config, tmp_path, dataset, step)
    resumed = train_run(config, tmp_path, dataset)
    assert (resumed.loss, resumed.loss_curve) == (straight.loss, straight.loss_curve)
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / config.run_id))
    assert any(name.startswith("mtp.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_record_is_that_of_the_model_alone(make_run: Any, undisturbed: Any, dataset: Dataset) -> None:
    config = make_run(MODEL, optimizer="muon", tokens=12 * 64, mtp_loss=0.1)
    record = RunFolder.open(undisturbed(config)).load_record()
    assert len(record.routing) == len(record.expert_load) == 2
    assert record.loss is not None
    assert record.loss < 6


def gradients(config: RunConfig, root: Path, dataset: Dataset) -> dict[str, torch.Tensor]:
    """Those of the first step, in fp64."""
    trainer = Trainer(config, RunFolder.create(root, config), dataset)
    trainer.model.double()
    found: dict[str, torch.Tensor] = {}

    def keep(_: float) -> float:
        named = trainer.model.named_parameters()
        found.update((name, parameter.grad.clone()) for name, parameter in named if parameter.grad is not None)
        return 0.0

    trainer.optimizer.step = keep  # type: ignore[method-assign]
    trainer.step()
    return found


@pytest.mark.parametrize("micro", [2, 1])
def test_accumulation_changes_no_gradient(make_run: Any, dataset: Dataset, tmp_path: Path, micro: int) -> None:
    options = {"dispatch": "loop", "tokens": 4 * 128, "batch_tokens": 128}
    whole = gradients(make_run(MODEL, **options), tmp_path, dataset)
    parts = gradients(make_run(MODEL, micro_batch=micro, **options), tmp_path, dataset)
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-7, atol=1e-9)


def test_configs_without_it_keep_their_names(make_run: Any) -> None:
    assert "mtp_loss" not in make_run().identity()["train"]
    assert "mtp_layers" not in make_run().identity()["model"]
    assert not any(name.startswith("mtp.") for name in build_model(make_run().model).state_dict())
