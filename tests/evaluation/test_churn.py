"""Churn: how many tokens changed experts since the evaluation before, padding left out."""

from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.model import build_model, churn

ROUTERS: dict[str, dict[str, Any]] = {
    "token choice": {},
    "bias": {"bias_update": 0.1},
    "expert choice": {"router": "expert_choice"},
    "mixture": {"router": "mixture_of_tokens", "group_size": 2},
    "soft": {"router": "soft", "group_size": 4, "grouping": "sequence"},
    "hash": {"router": "hash"},
}
IDS = torch.randint(0, 32, (4, 8), generator=torch.Generator().manual_seed(0))


def build(moe: dict[str, Any], seed: int) -> Any:
    sizes = {"n_experts": 4, "top_k": 2, "d_expert": 8, **moe}
    config = ModelConfig.parse({"vocab_size": 32, "d_model": 16, "n_layers": 1, "n_heads": 2, "moe": sizes})
    return build_model(config, seed=seed)


def choices(model: Any, mask: torch.Tensor | None = None) -> torch.Tensor:
    return model.loss(IDS, IDS, reduction="none", mask=mask, collect_routing=True).routing[0].choices


@pytest.mark.parametrize("moe", ROUTERS.values(), ids=ROUTERS.keys())
def test_it_is_zero_for_the_same_weights_and_not_for_others(moe: dict[str, Any]) -> None:
    one, other = choices(build(moe, 0)), choices(build(moe, 1))
    assert one.shape == (2, 32)
    assert churn(one, one) == {"churn": 0.0, "churn_top": 0.0}
    assert (churn(one, other)["churn"] > 0) == (moe.get("router") != "hash")


def test_it_equals_a_loop_over_the_tokens() -> None:
    models = [build({}, seed) for seed in (0, 1)]
    seen = []
    for model in models:
        layer = model.model.layers[0].mlp
        captured: list[torch.Tensor] = []
        handle = layer.router.register_forward_hook(lambda _m, _i, routing, keep=captured: keep.append(routing.chosen))
        seen.append([choices(model), captured[0]])
        handle.remove()
    (one, before), (other, after) = seen
    sets = sum(set(a.tolist()) != set(b.tolist()) for a, b in zip(before, after, strict=True)) / 32
    first = sum(a[0] != b[0] for a, b in zip(before, after, strict=True)) / 32
    assert churn(one, other) == {"churn": pytest.approx(sets), "churn_top": pytest.approx(float(first))}


@pytest.mark.parametrize("moe", list(ROUTERS.values())[:3], ids=list(ROUTERS)[:3])
def test_padding_is_left_out(moe: dict[str, Any]) -> None:
    mask = torch.ones_like(IDS, dtype=torch.bool)
    mask[1, 5:] = False
    assert choices(build(moe, 0), mask).shape == (2, 29)
