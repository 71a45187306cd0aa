"""The leak certificate reads zero for what cannot leak, finds what does, and leaves the model alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.cli import main
from moelab.errors import InputError
from moelab.evaluation.leaks import ZERO, certify
from moelab.model import build_model, leaks

CLEAN: list[dict[str, Any]] = [{}, {"router": "hash"}, {"router": "word"}, {"bias_update": 0.01}]
LEAKY: list[dict[str, Any]] = [
    {"router": "expert_choice"},
    {"router": "expert_choice", "grouping": "sequence"},
    {"router": "soft", "grouping": "sequence", "group_size": 8},
    {"router": "mixture_of_tokens", "group_size": 2},
    {"capacity_factor": 0.6},
]


def config(**moe: Any) -> ModelConfig:
    sizes = {"n_experts": 4, "top_k": 2, "d_expert": 8, **moe}
    return ModelConfig.parse({"vocab_size": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "moe": sizes})


@pytest.mark.parametrize("moe", CLEAN, ids=str)
def test_token_by_token_routing_reads_zero(moe: dict[str, Any]) -> None:
    found = certify(config(**moe), seq_len=8, trials=8)
    assert found.clean
    assert (found.earlier_rate, found.others_rate) == (0, 0)
    assert not leaks(config(**moe))


@pytest.mark.parametrize("moe", LEAKY, ids=str)
def test_leaks_are_found_and_can_be_switched_off(moe: dict[str, Any]) -> None:
    found = certify(config(**moe), seq_len=8, trials=8)
    assert not found.clean
    assert found.leak_free_change < ZERO
    assert leaks(config(**moe))


@pytest.mark.parametrize("seed", range(3))
def test_a_roomy_capacity_is_overfilled(seed: int) -> None:
    roomy = config(capacity_factor=1.5)
    found = certify(roomy, seed=seed)
    assert found.seen
    assert found.crowded.others_rate > 0
    assert not found.clean
    assert found.leak_free_change < ZERO


def test_what_can_leak_is_never_certified() -> None:
    almost = certify(config(capacity_factor=1.99), trials=2)
    assert (almost.seen, almost.can_leak, almost.clean) == (False, True, False)


@pytest.mark.parametrize(
    "moe",
    [
        {"capacity_factor": 2.0},
        {"capacity_factor": 100},
        {"router": "mixture_of_tokens", "group_size": 1, "top_k": 4},
        {"router": "soft", "group_size": 1, "top_k": 4},
        {"router": "expert_choice", "top_k": 4},
    ],
    ids=str,
)
def test_what_cannot_leak_is_known(moe: dict[str, Any]) -> None:
    found = certify(config(**moe), trials=4)
    assert (found.seen, found.can_leak, found.clean) == (False, False, True)


def test_the_kind_of_leak_follows_the_grouping() -> None:
    by_position = certify(config(router="mixture_of_tokens", group_size=2), seq_len=8, trials=8)
    within = certify(config(router="soft", grouping="sequence", group_size=8), seq_len=8, trials=8)
    assert by_position.earlier_rate == 0 < by_position.others_rate
    assert within.others_rate == 0 < within.earlier_rate


def test_each_kind_of_layer_is_measured_alone() -> None:
    sizes = {"vocab_size": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 16, "n_dense_layers": 1}
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 8, "router": "mixture_of_tokens", "group_size": 2}
    found = certify(ModelConfig.parse({**sizes, "moe": moe}), seq_len=8, trials=8)
    assert list(found.kinds) == ["attention", "dense feed-forward", "MoE, mixture_of_tokens"]
    for name, leak in found.kinds.items():
        assert leak.earlier_change < ZERO
        assert (leak.others_change > ZERO) == name.startswith("MoE")
    # a group of two: one other sequence of seven, at one position of eight
    assert found.kinds["MoE, mixture_of_tokens"].others_rate == pytest.approx(1 / 56)


@pytest.mark.parametrize("moe", CLEAN, ids=str)
def test_clean_layers_read_zero(moe: dict[str, Any]) -> None:
    for leak in certify(config(**moe), seq_len=8, trials=4).kinds.values():
        assert (leak.earlier_rate, leak.others_rate) == (0, 0)


def test_a_trained_model_stays_as_it_is() -> None:
    model = build_model(config(router="expert_choice"), seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    certify(model, seq_len=4, trials=2)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert next(model.parameters()).dtype == torch.float32


def test_bad_input() -> None:
    with pytest.raises(InputError, match="leaks: batch and seq_len"):
        certify(config(), batch=1)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config(capacity_factor=0.5).to_yaml(tmp_path / "model.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["leaks", str(tmp_path / "model.yaml"), "--seq-len", "6", "--trials", "4", "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["clean"] is False
    config(capacity_factor=1.99).to_yaml(tmp_path / "roomy.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["leaks", str(tmp_path / "roomy.yaml"), "--trials", "2"])
    assert not stop.value.code
    assert "none seen in 2 trials; this router can leak" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["leaks", "mixtral-8x7b"])
    assert stop.value.code == 2
    assert "too large" in capsys.readouterr().err
