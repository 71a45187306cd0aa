"""Prices and served tokens that are hardly meant are noted in a plan, and the two memories have different words."""

from typing import Any

import pytest

from moelab.planning import Budget, Plan, Space
from moelab.planning.plan import plan

SPACE = Space(d_model=(2048,), n_layers=(16, 24), n_experts=(64,), top_k=(8,), vocab_size=32000)


def planned(**changes: Any) -> Plan:
    serving = {"hardware": "h100", "tokens": changes.pop("tokens", 1e13), "traffic": {"gpus": 1, "output": 500}}
    serving |= {name: changes.pop(name) for name in ("gpu_price",) if name in changes}
    machine = {"gpus": 64, "days": 20, "train_hardware": "h100"}
    return plan(Budget.parse({**machine, "serving": serving, **changes}), ["ludziejewski2025"], SPACE)


def test_prices_ten_times_off_are_noted_and_usual_ones_are_not() -> None:
    text = "\n".join(planned(train_gpu_price=364, gpu_price=0.1).warnings)
    assert "--train-gpu-price: $364 an hour is 100 times the $3.64 known for NVIDIA H100" in text
    assert "an hour is 0.0275 times the $3.64 known" in text
    usual = "\n".join(planned(train_gpu_price=2.5, gpu_price=5).warnings)
    assert "-price: " not in usual


@pytest.mark.parametrize(("tokens", "noted"), [(2e7, True), (1e13, False)])
def test_few_tokens_to_serve_are_noted(tokens: float, noted: bool) -> None:
    text = "\n".join(planned(tokens=tokens).warnings)
    assert ("less than a thousandth of training: --serve-tokens are those of the model's whole life" in text) is noted


def test_the_two_memories_have_different_words() -> None:
    found = planned()
    assert f"; weights in bf16 and the KV cache of one sequence of {SPACE.seq_len:,} tokens take" in found.sentence
    assert "of memory" not in found.sentence
