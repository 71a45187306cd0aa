"""Turning to token choice keeps every weight and equals the leak-free evaluation of the model before."""

from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig, count_parameters
from moelab.errors import InputError
from moelab.model import build_model, leak_free, leaks, to_token_choice, token_choice_config


def config(**moe: Any) -> ModelConfig:
    sizes = {"n_experts": 8, "top_k": 2, "d_expert": 8, "group_size": 4, **moe}
    return ModelConfig.parse({"vocab_size": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "moe": sizes})


@pytest.mark.parametrize(
    "moe",
    [
        {"router": "mixture_of_tokens"},
        {"router": "mixture_of_tokens", "separate_emit": True, "learned_temperature": True},
        {"router": "expert_choice"},
    ],
    ids=str,
)
def test_it_equals_the_leak_free_evaluation(moe: dict[str, Any]) -> None:
    model = build_model(config(**moe), seed=2)
    ids = torch.randint(0, 32, (4, 6), generator=torch.Generator().manual_seed(0))
    with leak_free(model):
        expected = model(ids)
    turned = to_token_choice(model)
    torch.testing.assert_close(turned(ids), expected, rtol=1e-5, atol=1e-6)
    assert not leaks(turned.config)
    turned.loss(ids, ids).total.backward()
    assert all(p.grad is not None for p in turned.parameters())
    with torch.no_grad():
        next(turned.parameters()).zero_()
    assert next(model.parameters()).any()


def test_the_active_size_stays() -> None:
    before = config(router="mixture_of_tokens")
    assert count_parameters(token_choice_config(before)) == count_parameters(before)


@pytest.mark.parametrize("moe", [{"router": "soft"}, {"router": "mixture_of_tokens", "mixing": "uniform"}], ids=str)
def test_what_cannot_turn_is_refused(moe: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="transition: the router"):
        token_choice_config(config(**moe))
    with pytest.raises(InputError, match="transition: only a model with"):
        token_choice_config(config(group_size=None))
