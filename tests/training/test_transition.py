"""Transition tuning as a training option: the switch, resuming around it, and what the run has become."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moelab.architecture import count_flops, load_model
from moelab.data import Dataset
from moelab.errors import InputError
from moelab.evaluation import evaluate, validation_batches
from moelab.model import leaks
from moelab.runs import RunConfig, RunFolder
from moelab.training import load_trained, train_run

MOT = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "mixture_of_tokens", "group_size": 2}}
EMIT = {"moe": {**MOT["moe"], "separate_emit": True, "learned_temperature": True}}
SWITCH = {"transition": {"at": 0.75}, "tokens": 12 * 64}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([3], marks=pytest.mark.slow),
        [8],
        pytest.param([9], marks=pytest.mark.slow),
        pytest.param([10], marks=pytest.mark.slow),
        [2, 9, 9, 11],
    ],
)
def test_resumed_around_the_switch_equals_undisturbed(
    make_run: Any,
    undisturbed: Any,
    train_until: Any,
    dataset: Dataset,
    tmp_path: Path,
    kills: list[int],
    optimizer: str,
) -> None:
    config = make_run(EMIT, optimizer=optimizer, **SWITCH)
    assert config.train.switch_step == 9
    whole = undisturbed(config)
    straight = RunFolder.open(whole).load_record()
    for step in kills:
        train_until(config, tmp_path, dataset, step)
    resumed = train_run(config, tmp_path, dataset)
    assert (resumed.loss, resumed.train_loss, resumed.loss_curve) == (
        straight.loss,
        straight.train_loss,
        straight.loss_curve,
    )
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path / config.run_id))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_churn_survives_a_resume_after_the_switch(
    make_run: Any, train_until: Any, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_run(MOT, evaluations=12, **SWITCH)
    straight = train_run(config, tmp_path / "a", dataset)
    train_until(config, tmp_path / "b", dataset, 11)
    resumed = train_run(config, tmp_path / "b", dataset)
    assert "churn" in straight.loss_curve[-1]
    assert resumed.loss_curve == straight.loss_curve


def test_it_equals_an_untransitioned_run_up_to_the_switch(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    turned = train_run(make_run(MOT, evaluations=12, schedule="constant", **SWITCH), tmp_path, dataset)
    plain = train_run(make_run(MOT, evaluations=12, schedule="constant", tokens=12 * 64), tmp_path, dataset)
    assert turned.loss_curve[:9] == plain.loss_curve[:9]
    assert turned.loss_curve[9]["loss"] != plain.loss_curve[9]["loss"]
    assert all("loss_leak_free" in row for row in plain.loss_curve)
    assert all("loss_leak_free" not in row for row in turned.loss_curve[9:])
    assert plain.loss_leak_free is not None
    assert turned.loss_leak_free is None


def test_the_record_and_the_model_say_what_the_run_became(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run(EMIT, **SWITCH)
    record = train_run(config, tmp_path, dataset)
    assert (record.router, record.transition_step) == ("token_choice", 9)
    before, after = (float(count_flops(model, 16).train) for model in (config.model, config.final_model))
    assert record.train_flops == pytest.approx(64 * (9 * before + 3 * after))
    assert record.row()["transition_step"] == 9
    again, model = load_trained(tmp_path / record.run_id)
    assert again == config
    assert model.config == config.final_model == load_model(tmp_path / record.run_id)
    assert not leaks(model.config)
    batches = validation_batches(dataset, config.model, seq_len=16, trained_rows=4, max_tokens=config.train.eval_tokens)
    assert evaluate(model, batches).loss == record.loss


@pytest.mark.parametrize(
    ("model", "transition", "message"),
    [
        (MOT, {"at": 1}, r"train\.transition\.at: input should be less than 1"),
        (MOT, {"at": 0}, r"train\.transition\.at: input should be greater than 0"),
        (MOT, {"at": 0.5, "to": "soft"}, r"train\.transition\.to: input should be 'token_choice'"),
        (MOT, {"from": 0.5}, r"train\.transition"),
        (None, {"at": 0.5}, r"train\.transition: the router must be mixture_of_tokens, it is none: the model is dense"),
        ({"moe": {"n_experts": 4, "top_k": 2, "d_expert": 8}}, {"at": 0.5}, "it is token_choice"),
        ({"moe": {**MOT["moe"], "mixing": "uniform"}}, {"at": 0.5}, r"train\.transition: .* has no score"),
    ],
)
def test_bad_transitions_are_named(make_run: Any, model: Any, transition: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_run(model, transition=transition)


def test_a_run_of_one_step_has_no_room(make_run: Any) -> None:
    with pytest.raises(InputError, match="transition: needs at least two steps"):
        make_run(MOT, transition={"at": 0.5}, tokens=64)


def test_the_transition_is_part_of_the_identity(make_run: Any) -> None:
    plain = make_run(MOT)
    assert plain.run_id != make_run(MOT, transition={"at": 0.9}).run_id
    assert make_run(MOT, transition={"at": 0.9}).run_id != make_run(MOT, transition={"at": 0.8}).run_id
    assert "transition" not in str(RunConfig.identity(plain))
