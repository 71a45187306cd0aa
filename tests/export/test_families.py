"""Which class an architecture becomes, and what is refused in one line that names the field."""

from typing import Any

import pytest

from moelab.architecture import ModelConfig, load_preset, token_choice_config
from moelab.errors import InputError
from moelab.export import choose_family

BASE = {"vocab_size": 300, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_ff": 48}
MOE = {"n_experts": 8, "top_k": 2, "d_expert": 16}
SHARED = {**MOE, "n_shared_experts": 1, "d_shared": 16}
V3 = {**SHARED, "score": "sigmoid", "bias_update": 0.1}
LATENT: dict[str, Any] = {
    "qk_norm": "none",
    "moe": V3,
    "mla": {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8},
}
GEMMA = {"activation": "geglu", "norm": "rms_plus_one", "norm_position": "both", "embedding_scale": 32**0.5}


def config_with(**changes: Any) -> ModelConfig:
    return ModelConfig.parse({**BASE, **changes})


def test_each_case_becomes_its_class(case_config: tuple[str, ModelConfig]) -> None:
    kind, config = case_config
    assert choose_family(config).model_type == kind


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        ("mixtral-8x7b", "mixtral"),
        ("olmoe-1b-7b", "olmoe"),
        ("qwen3-30b-a3b", "qwen3_moe"),
        ("llama3-8b", "llama"),
        ("llama3.1-405b", "llama"),
        ("qwen3-235b-a22b", "qwen3_moe"),
        ("deepseek-v2", "deepseek_v2"),
        ("deepseek-v2-lite", "deepseek_v2"),
        ("deepseek-v3", "deepseek_v3"),
        ("kimi-k2", "deepseek_v3"),
        ("glm-4.5-air", "glm4_moe"),
        ("gpt-oss-120b", "gpt_oss"),
        ("minimax-m2.5", "minimax_m2"),
    ],
)
def test_public_models_become_their_own_class(preset: str, kind: str) -> None:
    assert choose_family(load_preset(preset)).model_type == kind


@pytest.mark.parametrize(
    ("preset", "field"), [("llama4-scout", "rope_pattern"), ("moonlight-16b-a3b", "norm_eps"), ("dbrx", "norm")]
)
def test_public_models_without_an_exact_class_are_refused_by_field(preset: str, field: str) -> None:
    with pytest.raises(InputError, match=field):
        choose_family(load_preset(preset))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation": "gelu"}, ["activation", "gelu"]),
        ({"qk_norm": "full"}, ["qk_norm full", "Qwen3"]),
        ({"moe": {**MOE, "router": "expert_choice", "group_size": 4}}, ["router", "expert_choice"]),
        ({"moe": {**MOE, "router": "soft", "group_size": 8}}, ["router", "soft"]),
        ({"moe": {**MOE, "router": "mixture_of_tokens", "group_size": 4}}, ["router", "transition"]),
        ({"moe": {**MOE, "router": "hash"}}, ["router", "hash"]),
        ({"moe": {**MOE, "router": "word"}}, ["router", "word"]),
        ({"moe": {**MOE, "router": "random"}}, ["router", "random"]),
        ({"moe": {**MOE, "output_norm": True}}, ["output_norm"]),
        ({"moe": {**MOE, "score": "sigmoid", "normalize_scores": True}}, ["normalize_scores"]),
        ({"moe": SHARED}, ["Qwen3-MoE lacks n_shared_experts", "GLM-4-MoE lacks score softmax"]),
        ({"moe": {**SHARED, "shared_gate": True}}, ["Qwen2-MoE lacks qk_norm head"]),
        ({"moe": {**MOE, "bias_update": 0.1}}, ["bias_update"]),
        ({"moe": {**MOE, "top_k": 1}, "qk_norm": "none"}, ["top_k 1"]),
        ({"moe": {**SHARED, "score": "sigmoid", "d_shared": 24}}, ["d_shared", "d_expert (16)"]),
        ({"moe": {**SHARED, "score": "sigmoid"}, "moe_every": 2}, ["moe_every"]),
        ({"moe": MOE, "qk_norm": "full", "head_dim": 12}, ["n_heads x head_dim", "32"]),
        ({"attention_gate": "element"}, ["attention_gate: no exportable class has a gate on the attention output"]),
        ({"moe": {**MOE, "d_latent": 16}}, ["d_latent: no exportable class has experts in a latent space"]),
        ({"moe": {**MOE, "hash_layers": 1}}, ["hash_layers: no exportable class"]),
        ({"moe": {**MOE, "input_gates": True}}, ["input_gates: no exportable class"]),
        ({"head_bias": True}, ["head_bias: no exportable class"]),
        ({"sliding_window": 4, "sliding_pattern": ["chunk"]}, ["Qwen3 lacks sliding_pattern with chunks"]),
        ({"sliding_window": 4, "sliding_n_kv_heads": 1}, ["Qwen3 lacks sliding_n_kv_heads"]),
        ({"sliding_window": 4, "sliding_rope_theta": 9.0}, ["Qwen3 lacks sliding_rope_theta"]),
        ({"moe": MOE, "sliding_window": 4, "sliding_pattern": ["window", "full"]}, ["sliding_pattern with full"]),
        ({**LATENT, "norm_eps": 1e-5}, ["norm_eps other than 1e-06"]),
        ({**LATENT, "moe": {**V3, "n_group": 4, "topk_group": 2, "group_score": "max"}}, ["group_score max"]),
        ({**LATENT, "moe": {**V3, "n_group": 8, "topk_group": 2}}, ["n_group of one expert each"]),
        ({**LATENT, "moe": V3, "attention_bias": "qkv"}, ["attention_bias qkv"]),
        ({**GEMMA, "embedding_scale": 5.0}, ["embedding_scale other than the square root"]),
        ({**GEMMA, "norm_position": "post"}, ["norm_position post"]),
        ({"qk_norm": "none", "d_model": 30, "head_dim": 8, "attention_bias": True}, ["n_heads"]),
    ],
)
def test_what_no_class_represents_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        choose_family(config_with(**changes))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_count_only_models_are_refused() -> None:
    with pytest.raises(InputError, match="cannot build or export a router bias of the router hash"):
        choose_family(config_with(moe={**MOE, "router": "hash", "router_bias": True}))


def test_a_mixture_of_tokens_exports_once_it_has_turned() -> None:
    before = config_with(moe={**MOE, "router": "mixture_of_tokens", "group_size": 4})
    assert choose_family(token_choice_config(before)).model_type == "qwen3_moe"
