"""The compiled decode step against the modules: logits over many steps, every option, padding, threads."""

from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.cache import KVCache
from moelab.model.decode import NativeDecode, decodes_natively
from moelab.model.generate import generate
from moelab.model.native import load, status

pytestmark = pytest.mark.skipif(load()[0] is None, reason=status())

MOE = {"n_experts": 6, "top_k": 2, "d_expert": 10}
CASES: dict[str, dict[str, Any]] = {
    "dense": {"d_ff": 50},
    "dense, tied, norm of heads": {"d_ff": 50, "qk_norm": "head", "tie_embeddings": True},
    "softmax": {"moe": MOE, "qk_norm": "full"},
    "gates as they are": {"moe": {**MOE, "top_k": 1, "normalize_gates": False, "routed_scaling": 1.7}},
    "sigmoid, bias, shared": {
        "moe": {**MOE, "score": "sigmoid", "bias_update": 0.1, "n_shared_experts": 1, "d_shared": 14}
    },
    "first layer dense": {"moe": {**MOE, "top_k": 6}, "n_dense_layers": 1, "d_ff": 20},
    "normalised scores": {"moe": {**MOE, "score": "sigmoid", "normalize_scores": True, "capacity_factor": 1.0}},
}


def build(name: str) -> LanguageModel:
    sizes = {"vocab_size": 41, "d_model": 28, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6}
    model = build_model(ModelConfig.parse({**sizes, **CASES[name]}), seed=1).eval()
    for key, buffer in model.named_buffers():
        if key.endswith("balance_bias"):
            buffer.copy_(torch.linspace(-0.2, 0.2, 6))
    return model


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_equal_the_modules(name: str, threads: int) -> None:
    model = build(name)
    assert decodes_natively(model, 3)
    tokens = torch.randint(0, 41, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :2] = False
    slow, fast = (KVCache(model.config, 3, 12, torch.float32, torch.device("cpu")) for _ in range(2))
    for cache in (slow, fast):
        model(tokens[:, :4], cache=cache, mask=mask[:, :4])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        step = NativeDecode(model, fast, start=(~mask).sum(1))
        for end in range(5, 13):
            expected = model(tokens[:, end - 1 : end], cache=slow, mask=mask[:, :end])[:, -1]
            torch.testing.assert_close(step(tokens[:, end - 1 : end]), expected, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(before)
    assert fast.length == slow.length == 12


@pytest.mark.parametrize("name", ["dense", "softmax"])
def test_generated_tokens_equal_those_of_the_modules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = build(name), [[3, 1, 4, 1, 5], [9, 2], [6]]
    fast = [generate(model, prompts, max_new_tokens=15, temperature=t, seed=2) for t in (0.0, 1.0)]
    monkeypatch.setattr("moelab.model.decode.MOST_SEQUENCES", 0)
    assert fast == [generate(model, prompts, max_new_tokens=15, temperature=t, seed=2) for t in (0.0, 1.0)]


@torch.no_grad()
def test_experts_that_nobody_chose_are_not_read() -> None:
    """Their weights may be anything, even not a number, and the same logits come out."""
    model = build("softmax")
    cache = KVCache(model.config, 1, 8, torch.float32, torch.device("cpu"))
    model(torch.tensor([[1, 2, 3]]), cache=cache)
    step = NativeDecode(model, cache, start=torch.zeros(1))
    expected = step(torch.tensor([[7]])).clone()
    chosen: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.mlp.router.register_forward_hook(lambda _m, _i, routing: chosen.append(routing.chosen))
    model(torch.tensor([[1, 2, 3, 7]]))
    for layer, routed in zip(model.model.layers, chosen, strict=True):
        idle = [expert for expert in range(6) if expert not in routed[-1].tolist()]
        assert len(idle) == 4
        layer.mlp.experts.first[idle] = torch.nan
        layer.mlp.experts.down_proj[idle] = torch.nan
    for layer_cache in cache.layers:
        layer_cache.length -= 1
    torch.testing.assert_close(step(torch.tensor([[7]])), expected, rtol=0, atol=0)


def test_what_it_cannot_run_goes_to_the_modules() -> None:
    sizes = {"vocab_size": 41, "d_model": 24, "n_layers": 1, "n_heads": 4}
    gelu = build_model(ModelConfig.parse({**sizes, "d_ff": 30, "activation": "gelu"}))
    gated = {**MOE, "n_shared_experts": 1, "d_shared": 8, "shared_gate": True}
    assert not decodes_natively(gelu, 1)
    assert not decodes_natively(build_model(ModelConfig.parse({**sizes, "moe": gated})), 1)
    assert not decodes_natively(build("dense").bfloat16(), 1)
    assert not decodes_natively(build("dense"), 1000)
