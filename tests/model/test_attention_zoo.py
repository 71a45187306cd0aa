"""Every kind of attention: generation with a cache, in batches, in pieces; what the cache holds; no leak; learning."""

from typing import Any

import pytest
import torch

from moelab.architecture import ModelConfig
from moelab.evaluation.leaks import certify
from moelab.model import LanguageModel, build_model
from moelab.model.cache import KVCache
from moelab.model.generate import generate
from moelab.runs import TrainConfig
from moelab.training import Optimizer

SIZES = {"vocab_size": 32, "d_model": 16, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6, "d_ff": 20}
MLA = {"kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 5}
YARN = {"kind": "yarn", "factor": 4.0, "original_context": 4, "mscale": 1.0, "mscale_all_dim": 0.5}
LLAMA3 = {"kind": "llama3", "factor": 8.0, "original_context": 8, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ZOO: dict[str, dict[str, Any]] = {
    "window everywhere": {"sliding_window": 3},
    "window of one": {"sliding_window": 1},
    "every second, own heads and base": {
        "sliding_window": 4, "sliding_pattern": ["window", "full"], "sliding_n_kv_heads": 4, "sliding_rope_theta": 50.0,
    },
    "chunks, layers without positions": {
        "sliding_window": 4, "sliding_pattern": ["chunk", "full"], "rope_pattern": ["rope", "none"], "qk_norm": "l2",
        "attention_temperature": {"scale": 0.5, "floor": 3}, "rope_interleaved": True, "rope_scaling": LLAMA3,
    },
    "sinks": {"attention_sinks": True, "sliding_window": 3, "sliding_pattern": ["window", "full"]},
    "qkv biases, no norms": {"attention_bias": "qkv", "qk_norm": "none", "head_dim": 10},
    "latent": {"mla": MLA, "rope_interleaved": True},
    "latent, query rank, yarn, biases": {
        "mla": {**MLA, "q_lora_rank": 8}, "rope_scaling": YARN, "attention_bias": True,
    },
    "latent, windows, sinks": {
        "mla": MLA, "sliding_window": 3, "sliding_pattern": ["full", "window"], "attention_sinks": True,
    },
    "caps, scale, clip": {"attention_softcap": 2.0, "logit_softcap": 3.0, "attention_scale": 0.7, "clip_qkv": 0.5},
    "gate by head": {"attention_gate": "head", "rotary_dim": 4},
    "gate by element": {
        "attention_gate": "element", "qk_norm": "full", "rope_scaling": {"kind": "linear", "factor": 3.0},
    },
    "norms on both sides, + 1": {"norm": "rms_plus_one", "norm_position": "both", "activation": "geglu"},
    "layer norms behind": {"norm": "layer", "norm_bias": True, "norm_position": "post", "head_bias": True},
    "clamped, scaled embeddings": {
        "activation": "clamped_swiglu", "swiglu_limit": 1.0, "embedding_scale": 4.0, "head_bias": True,
        "tie_embeddings": False,
    },
}  # fmt: skip
PROMPTS = [[5, 9, 2, 7, 30, 1, 4], [1, 3], [8, 8, 8, 2]]


def model(name: str) -> LanguageModel:
    """Weights of ordinary size, so that every option changes the answer."""
    found = build_model(ModelConfig.parse({**SIZES, **ZOO[name]}), seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return found


@pytest.mark.parametrize("name", ZOO)
def test_generation_is_the_same_cached_uncached_and_one_by_one(name: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0}
    found = model(name)
    together = generate(found, PROMPTS, **options)
    assert together == generate(found, PROMPTS, **options, use_cache=False)
    assert together == [generate(found, [prompt], **options)[0] for prompt in PROMPTS]


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_pieces_with_a_cache_equal_the_whole(name: str, padded: bool) -> None:
    found = model(name)
    tokens = torch.randint(0, 32, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    if padded:
        mask[0, :3], mask[1, :1] = False, False
    cache, done, parts = KVCache(found.config, 3, 12, torch.float32, torch.device("cpu")), 0, []
    for length in (2, 1, 1, 5, 3):
        shown = mask[:, : done + length] if padded else None
        parts.append(found(tokens[:, done : done + length], cache=cache, mask=shown))
        done += length
    whole = found(tokens, mask=mask if padded else None)
    torch.testing.assert_close(torch.cat(parts, 1)[mask], whole[mask], rtol=1e-5, atol=1e-5)
    if padded:
        alone = found(tokens[:1, 3:])
        torch.testing.assert_close(whole[:1, 3:], alone, rtol=1e-5, atol=1e-5)


def test_the_cache_keeps_what_layers_need() -> None:
    """Windows keep window - 1 tokens of 100; latent attention keeps kv_lora_rank + qk_rope_head_dim numbers a token."""
    sizes = {}
    for name in ("every second, own heads and base", "latent", "latent, windows, sinks"):
        config = ModelConfig.parse({**SIZES, **ZOO[name]})
        sizes[name] = KVCache(config, 2, 100, torch.float32, torch.device("cpu")).nbytes / 4 / 2
    assert sizes["every second, own heads and base"] == 2 * 3 * (2 * 4 * 6) + 100 * (2 * 2 * 6)
    assert sizes["latent"] == 3 * 100 * (6 + 4)
    assert sizes["latent, windows, sinks"] == (100 + 2 + 100) * (6 + 4)


@pytest.mark.parametrize("name", ZOO)
def test_no_kind_leaks(name: str) -> None:
    found = certify(model(name), batch=3, seq_len=10, trials=6)
    assert found.clean
    assert set(found.kinds) == {"attention", "dense feed-forward"}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_parameter_learns(name: str, optimizer: str) -> None:
    found = build_model(ModelConfig.parse({**SIZES, **ZOO[name]}), seed=0)
    train = TrainConfig(tokens=48, seq_len=12, batch_tokens=24, optimizer=optimizer, weight_decay=0.0)
    steps = Optimizer(found, train)
    before = {key: value.detach().clone() for key, value in found.named_parameters()}
    tokens = torch.randint(0, 32, (2, 13), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(5):
        output = found.loss(tokens[:, :-1], tokens[:, 1:])
        output.total.backward()
        steps.step(3e-2)
        losses.append(output.loss.item())
    assert losses[-1] < losses[0] - 0.1
    still = [key for key, value in found.named_parameters() if torch.equal(value, before[key])]
    idle = [key for key in before if name == "window of one" and any(f".{part}" in key for part in ("q_", "k_"))]
    assert still == idle
    state = steps.state()
    matrices = {key for key in state if key.endswith(".momentum")}
    one_dimensional = {f"{key}.momentum" for key, value in found.named_parameters() if value.ndim == 1}
    assert not matrices & one_dimensional


@pytest.mark.parametrize("name", ZOO)
def test_autocast_is_near_fp32(name: str) -> None:
    found = model(name)
    tokens = torch.randint(0, 32, (2, 13), generator=torch.Generator().manual_seed(0))
    exact = found.loss(tokens[:, :-1], tokens[:, 1:]).loss
    with torch.autocast("cpu", torch.bfloat16):
        rounded = found.loss(tokens[:, :-1], tokens[:, 1:]).loss
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=3e-2)
