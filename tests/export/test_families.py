"""Which class an architecture becomes, and what is refused in one line that names the field."""

from typing import Any

import pytest

from moelab.architecture import ModelConfig, load_preset, token_choice_config
from moelab.errors import InputError
from moelab.export import choose_family
from moelab.model import LanguageModel

BASE = {"vocab_size": 300, "d_model": 32, "n_layers": 3, "n_heads": 4, "d_ff": 48}
MOE = {"n_experts": 8, "top_k": 2, "d_expert": 16}
SHARED = {**MOE, "n_shared_experts": 1, "d_shared": 16}


def config_with(**changes: Any) -> ModelConfig:
    return ModelConfig.parse({**BASE, **changes})


def test_each_case_becomes_its_class(case: tuple[str, LanguageModel]) -> None:
    kind, model = case
    assert choose_family(model.config).model_type == kind


@pytest.mark.parametrize(
    ("preset", "kind"),
    [
        ("mixtral-8x7b", "mixtral"),
        ("olmoe-1b-7b", "olmoe"),
        ("qwen3-30b-a3b", "qwen3_moe"),
        ("llama3-8b", "llama"),
    ],
)
def test_public_models_become_their_own_class(preset: str, kind: str) -> None:
    assert choose_family(load_preset(preset)).model_type == kind


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
        ({"qk_norm": "none", "d_model": 30, "head_dim": 8}, ["n_heads"]),
    ],
)
def test_what_no_class_represents_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        choose_family(config_with(**changes))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_count_only_presets_are_refused() -> None:
    with pytest.raises(InputError, match="latent attention"):
        choose_family(load_preset("deepseek-v3"))


def test_a_mixture_of_tokens_exports_once_it_has_turned() -> None:
    before = config_with(moe={**MOE, "router": "mixture_of_tokens", "group_size": 4})
    assert choose_family(token_choice_config(before)).model_type == "qwen3_moe"
