"""Steps that are recorded once and repeated equal those that are not, bit for bit: nothing of the host is baked in."""

from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.data import Dataset
from moelab.runs import RunConfig, RunFolder
from moelab.training import Trainer
from moelab.training.graphs import WARM_STEPS, Capture
from moelab.training.kernels import computed_by
from tests.training.recorded import capture, capture_until

MOE = {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 0.1, "z_loss": 0.01, "bias_update": 0.01}
SHARED = {**MOE, "n_shared_experts": 1, "d_shared": 16, "score": "sigmoid"}
EXPERTS = {"n_experts": 4, "top_k": 2, "d_expert": 16}
MIXTURE = {**EXPERTS, "router": "mixture_of_tokens", "group_size": 2}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "dense": (None, {}),
    "dense, pieces, wsd": (None, {"micro_batch": 1, "schedule": "wsd"}),
    "muon": (None, {"optimizer": "muon"}),
    "moe": (MOE, {"dispatch": "grouped"}),
    "moe, bf16": (MOE, {"dispatch": "grouped", "precision": "bf16"}),
    "moe, muon, pieces": (SHARED, {"dispatch": "grouped", "optimizer": "muon", "micro_batch": 1}),
    "recomputed": (MOE, {"dispatch": "grouped", "recompute": "full"}),
    "expert choice": ({**EXPERTS, "router": "expert_choice", "group_size": 2}, {"dispatch": "grouped"}),
    "groups of experts": ({**SHARED, "n_group": 2, "topk_group": 1}, {"dispatch": "grouped"}),
    "transition": (MIXTURE, {"dispatch": "grouped", "transition": {"at": 0.5}}),
}


def trained(config: RunConfig, root: Path, dataset: Dataset, how: Capture | None) -> tuple[Trainer, list[Any]]:
    trainer = Trainer(config, RunFolder.create(root, config), dataset, capture=how)
    with computed_by(config.train):
        curve = [(float(trainer.step()), float(trainer.grad_norm)) for _ in range(config.train.steps)]
        trainer.evaluate()
    return trainer, curve


def refuse(call: Any) -> Any:
    raise RuntimeError("operation not permitted when stream is capturing\nand a second line")


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {**trainer.layout.state(), **trainer.optimizer.state()}


SLOW = ("dense, pieces, wsd", "moe, bf16", "recomputed", "expert choice", "groups of experts")


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in CASES])
def test_a_recorded_step_is_the_step(case: str, make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    moe, how = CASES[case]
    config = make_run({"moe": moe}, kernels="torch", tokens=8 * 64, **how)
    recorded, curve = trained(config, tmp_path / "recorded", dataset, capture)
    assert recorded.not_recorded() == []
    # Muon's rate joins another product where it is a tensor, as it is in every run on a GPU.
    plain, expected = trained(config, tmp_path / "plain", dataset, refuse if config.train.optimizer == "muon" else None)
    assert curve == expected
    found, wanted = state(recorded), state(plain)
    assert found.keys() == wanted.keys()
    assert [name for name, tensor in wanted.items() if not torch.equal(found[name], tensor)] == []
    assert recorded.optimizer.take_expert_steps() == plain.optimizer.take_expert_steps()


def test_a_rate_on_the_device_is_the_rate(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    """Muon's steps differ in the last digits of a product, AdamW's not at all (above)."""
    config = make_run(optimizer="muon", tokens=8 * 64)
    on_device, curve = trained(config, tmp_path / "device", dataset, refuse)
    _, expected = trained(config, tmp_path / "host", dataset, None)
    assert [loss for loss, _ in curve] == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    reason = "steps are not repeated as a CUDA graph: operation not permitted when stream is capturing"
    assert on_device.not_recorded() == [reason]


def test_what_reads_the_device_is_not_recorded(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    """The loop over experts reads how many tokens each has: its run goes on as it is, with the same numbers."""
    config = make_run({"moe": MOE}, kernels="torch", dispatch="loop", tokens=8 * 64)
    recorded, curve = trained(config, tmp_path / "recorded", dataset, capture)
    assert "operation not permitted" in recorded.not_recorded()[0]
    assert curve == trained(config, tmp_path / "plain", dataset, None)[1]


def test_a_resumed_run_records_anew(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run({"moe": MOE}, kernels="torch", dispatch="grouped", tokens=16 * 64)
    whole, _ = trained(config, tmp_path / "whole", dataset, None)
    first = Trainer(config, RunFolder.create(tmp_path, config), dataset, capture=capture)
    with computed_by(config.train):
        for _ in range(WARM_STEPS + 3):
            first.step()
        first.save(1.0)
        second = Trainer(config, RunFolder.create(tmp_path, config), dataset, capture=capture)
        second.restore()
        while second.progress.step < config.train.steps:
            second.step()
    found, wanted = state(second), state(whole)
    assert [name for name, tensor in wanted.items() if not torch.equal(found[name], tensor)] == []


@pytest.mark.parametrize("operator", ["mul", "_fused_adamw_"])
def test_a_recording_that_fails_leaves_no_trace(operator: str, make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run({"moe": MOE}, kernels="torch", dispatch="grouped", tokens=6 * 64)
    found, curve = trained(config, tmp_path / "recorded", dataset, capture_until(operator))
    assert operator in found.not_recorded()[0]
    assert curve == trained(config, tmp_path / "plain", dataset, None)[1]
