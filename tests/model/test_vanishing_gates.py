"""Scores that vanish (a sigmoid of -100 and below) give gates of 0, not NaN: forward, backward, records, decoding."""

from typing import Any

import pytest
import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import DISPATCHES, LanguageModel, MoELayer, build_model
from moelab.model import native as kernels
from moelab.model.cache import KVCache
from moelab.model.decode import NativeDecode, decodes_natively
from moelab.model.router import shares

SIZES: dict[str, Any] = {"vocab_size": 32, "d_model": 16, "n_layers": 1, "n_heads": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "gates": {"score": "sigmoid"},
    "scores": {"score": "sigmoid", "normalize_scores": True},
    "gates, chosen by bias": {"score": "softmax", "bias_update": 0.1},
    "balance loss": {"score": "sigmoid", "balance_loss": 0.01, "z_loss": 0.001},
}


def build(options: str, dispatch: str = "loop") -> LanguageModel:
    """A model whose chosen scores vanish for every token: fp32 has no sigmoid of -200, no softmax 200 below the top."""
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 8, **OPTIONS[options]}
    model = build_model(ModelConfig.parse({**SIZES, "moe": moe}), seed=1, dispatch=dispatch)
    layer: Any = model.model.layers[0]
    with torch.no_grad():
        # The first entry of every normalised state is 4, so a column of the router sets all logits.
        layer.post_attention_layernorm.weight.zero_()
        layer.mlp.router.weight.zero_()
        layer.mlp.router.weight[:, 0] = -50.0
        layer.post_attention_layernorm.weight[0] = 4.0
        if options == "gates, chosen by bias":
            layer.mlp.router.weight[2:, 0] = 50.0
            layer.mlp.router.balance_bias[:2] = 9.0
        layer.self_attn.o_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1.0
    return model


def tokens() -> Tensor:
    return torch.randint(0, 32, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compiled", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_layer_adds_nothing_and_every_gradient_is_finite(
    options: str, dispatch: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(kernels, "load", lambda: (None, "switched off by a test"))
    model = build(options, dispatch)
    layer: Any = model.model.layers[0].mlp
    assert isinstance(layer, MoELayer)
    states = model.model.layers[0].post_attention_layernorm(model.model.embed_tokens(tokens()))
    logits = states @ layer.router.weight.T
    assert logits.abs().min() >= 150
    y, _ = layer(states)
    assert not y.any()
    output = model.loss(tokens(), tokens().roll(1, 1), collect_routing=True)
    output.total.backward()
    assert torch.isfinite(output.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    numbers = output.routing[0].summary()
    assert all(value == value for value in numbers.values()), numbers


@pytest.mark.skipif(kernels.load()[0] is None, reason=kernels.status())
@pytest.mark.parametrize("options", ["gates", "scores", "gates, chosen by bias"])
@torch.no_grad()
def test_the_compiled_decode_step_equals_the_modules(options: str) -> None:
    model = build(options).eval()
    assert decodes_natively(model, 2)
    slow, fast = (KVCache(model.config, 2, 6, torch.float32, torch.device("cpu")) for _ in range(2))
    for cache in (slow, fast):
        model(tokens()[:, :3], cache=cache)
    step = NativeDecode(model, fast, start=torch.zeros(2))
    expected = model(tokens()[:, 3:4], cache=slow)[:, -1]
    assert torch.isfinite(expected).all()
    torch.testing.assert_close(step(tokens()[:, 3:4]), expected, rtol=1e-4, atol=1e-5)


def test_shares_are_a_plain_division_wherever_the_sum_can_be_seen() -> None:
    scores = torch.rand(1000, 6, generator=torch.Generator().manual_seed(3)) ** 8 + 1e-9
    assert torch.equal(shares(scores), scores / scores.sum(-1, keepdim=True))
    assert not shares(torch.zeros(2, 3)).any()
