"""A step's gradient does not depend on how its batch is cut: into forward passes or over processes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.model import LanguageModel, build_model
from moelab.runs import RunConfig, RunFolder
from moelab.training import Trainer

BATCH = {"tokens": 4 * 128, "batch_tokens": 128}
MOE: dict[str, Any] = {"n_experts": 4, "top_k": 2, "d_expert": 16, "balance_loss": 1.0, "z_loss": 0.5}


def gradients(config: RunConfig, root: Path, dataset: Dataset) -> tuple[dict[str, torch.Tensor], LanguageModel]:
    """The gradients of the first step, in fp64, and the model after it."""
    trainer = Trainer(config, RunFolder.create(root, config), dataset)
    trainer.model.double()
    found = {}

    def keep(_: float) -> float:
        for name, parameter in trainer.model.named_parameters():
            assert parameter.grad is not None
            found[name] = parameter.grad.clone()
        return 0.0

    trainer.optimizer.step = keep  # type: ignore[method-assign]
    trainer.step()
    return found, trainer.model


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of a gradient, relative to the largest gradient of its parameter."""
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)


@pytest.mark.parametrize("over", ["batch", "sequence"])
@pytest.mark.parametrize("moe", [{}, {"score": "sigmoid"}, {"bias_update": 0.1}], ids=str)
@pytest.mark.parametrize("micro", [4, 2, 1])
def test_accumulation_changes_no_gradient(
    make_run: Any, dataset: Dataset, tmp_path: Path, over: str, moe: dict[str, Any], micro: int
) -> None:
    model = {"moe": {**MOE, **moe}}
    options = {"dispatch": "loop", "balance_over": over, "logit_z_loss": 0.1, **BATCH}
    whole, reference = gradients(make_run(model, **options), tmp_path, dataset)
    parts, accumulated = gradients(make_run(model, micro_batch=micro, **options), tmp_path, dataset)
    assert distance(whole, parts) < 1e-9
    for name, buffer in reference.named_buffers():
        assert torch.equal(buffer, accumulated.get_buffer(name)), name


def test_forming_it_in_each_forward_pass_would_change_it(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    options = {"dispatch": "loop", "balance_over": "micro_batch", **BATCH}
    whole, _ = gradients(make_run({"moe": MOE}, **options), tmp_path, dataset)
    parts, _ = gradients(make_run({"moe": MOE}, micro_batch=1, **options), tmp_path, dataset)
    assert distance(whole, parts) > 1e-2


def test_the_loss_over_each_sequence_is_the_mean_of_theirs(make_run: Any) -> None:
    model = build_model(make_run({"moe": MOE}).model, seed=4, dispatch="loop")
    ids = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(1))
    together = model.loss(ids, ids, balance_over="sequence").auxiliary["balance"]
    alone = [model.loss(row, row).auxiliary["balance"] for row in ids.split(1)]
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 9:] = False
    padded = model.loss(ids, ids, mask=mask, balance_over="sequence").auxiliary["balance"]
    alone[1] = model.loss(ids[1:2, :9], ids[1:2, :9]).auxiliary["balance"]
    assert padded.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_groups_of_sequences_are_not_cut(make_run: Any) -> None:
    moe = {"n_experts": 4, "top_k": 1, "d_expert": 16, "router": "mixture_of_tokens", "group_size": 4}
    with pytest.raises(InputError, match=r"train\.micro_batch: the 2 sequences .* multiple of model\.moe\.group_size"):
        make_run({"moe": moe}, micro_batch=2, **BATCH)
    assert make_run({"moe": moe}, micro_batch=4, **BATCH).train.micro_batch == 4
    with pytest.raises(InputError, match=r"train\.batch_tokens: the 6 sequences .* model\.moe\.group_size \(4\)"):
        make_run({"moe": moe}, batch_tokens=96)


def test_groups_of_neighbours_fit_in_a_sequence(make_run: Any) -> None:
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "expert_choice", "grouping": "sequence"}
    with pytest.raises(InputError, match=r"train\.seq_len: the 16 tokens .* model\.moe\.group_size \(6\)"):
        make_run({"moe": {**moe, "group_size": 6}})
    assert make_run({"moe": {**moe, "group_size": 8}})
    assert make_run({"moe": moe})


def test_one_group_gives_every_expert_whole_slots(make_run: Any) -> None:
    moe = {"n_experts": 8, "top_k": 1, "d_expert": 16, "router": "expert_choice"}
    with pytest.raises(InputError, match=r"train\.batch_tokens: the 4 sequences .* multiple of n_experts \(8\)"):
        make_run({"moe": moe})
