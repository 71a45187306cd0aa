"""Totals and defaults against transformers' own classes, built without memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moelab.architecture import count_parameters, load_preset
from moelab.architecture.huggingface import FAMILIES, read_huggingface

transformers = pytest.importorskip("transformers")
PUBLISHED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "published_configs.json").read_text())
CLASSES = [name for name, family in FAMILIES.items() if family.class_name]
DENSE = {
    "vocab_size": 301, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 64, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
WINDOWS = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 3}
GEMMA = {**DENSE, "sliding_window": 7, "query_pre_attn_scalar": 12, "attention_bias": True}
DEEPSEEK = {
    **DENSE, "first_k_dense_replace": 2, "n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 2,
    "moe_intermediate_size": 20, "n_group": 3, "topk_group": 2, "attention_bias": True,
}  # fmt: skip
LATENT = {
    **DEEPSEEK, "num_key_value_heads": 6, "kv_lora_rank": 14, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4,
    "v_head_dim": 9, "q_lora_rank": None,
}  # fmt: skip
ODD: dict[str, list[dict[str, Any]]] = {
    "llama": [{**DENSE, "attention_bias": True}],
    "mistral": [{**DENSE, "sliding_window": 7, "tie_word_embeddings": False}],
    "qwen2": [{**DENSE, **WINDOWS}],
    "qwen3": [{**DENSE, **WINDOWS, "attention_bias": True}],
    "olmo2": [{**DENSE, "head_dim": 8, "attention_bias": True}],
    "olmo3": [{**DENSE, "head_dim": 8, "sliding_window": 7}],
    "gemma2": [GEMMA],
    "gemma3_text": [{**GEMMA, "sliding_window_pattern": 2}],
    "mixtral": [{**DENSE, "sliding_window": 7, "num_local_experts": 5}],
    "qwen2_moe": [
        {**DENSE, **WINDOWS, "head_dim": 8, "num_experts": 5, "moe_intermediate_size": 20, "num_experts_per_tok": 2,
         "shared_expert_intermediate_size": 28, "decoder_sparse_step": 2, "qkv_bias": False},
    ],
    "qwen3_moe": [
        {**DENSE, "num_experts": 5, "moe_intermediate_size": 20, "num_experts_per_tok": 2, "mlp_only_layers": [0, 1],
         "attention_bias": True},
        {**DENSE, "num_experts": 0, "use_sliding_window": True, "sliding_window": 7},
    ],
    "olmoe": [{**DENSE, "head_dim": 8, "num_experts": 5, "num_experts_per_tok": 2, "attention_bias": True}],
    "phimoe": [{**DENSE, "head_dim": 8, "num_local_experts": 5, "attention_bias": True, "lm_head_bias": True}],
    "dbrx": [
        {"d_model": 48, "n_heads": 6, "n_layers": 3, "vocab_size": 301,
         "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 5e5},
         "ffn_config": {"ffn_hidden_size": 20, "moe_num_experts": 5, "moe_top_k": 2}},
    ],
    "gpt_oss": [{**DENSE, "num_local_experts": 5, "num_experts_per_tok": 2, "attention_bias": False}],
    "llama4_text": [
        {**DENSE, "intermediate_size_mlp": 72, "num_local_experts": 5, "interleave_moe_layer_step": 2,
         "use_qk_norm": False, "attention_chunk_size": 7, "attention_bias": True},
        {**DENSE, "intermediate_size_mlp": 72, "num_local_experts": 5, "moe_layers": [3, 4],
         "no_rope_layers": [1, 0, 1, 0, 1]},
        {**DENSE, "intermediate_size_mlp": 72, "moe_layers": []},
    ],
    "minimax_m2": [{**DENSE, "num_local_experts": 5, "num_experts_per_tok": 2}],
    "ernie4_5_moe": [
        {**DENSE, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 20, "moe_num_shared_experts": 0,
         "moe_layer_start_index": 2},
        {**DENSE, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 20, "moe_layer_interval": 2,
         "moe_layer_start_index": 0},
    ],
    "deepseek_v2": [LATENT | {"topk_method": "group_limited_greedy"}, LATENT | {"q_lora_rank": 11, "n_group": None}],
    "deepseek_v3": [LATENT, LATENT | {"q_lora_rank": 11, "tie_word_embeddings": False, "attention_bias": False}],
    "glm4_moe": [{**DEEPSEEK, "use_qk_norm": True}, {**DEEPSEEK, "first_k_dense_replace": 5}],
    "dots1": [{**DEEPSEEK, "sliding_window": 7, "max_window_layers": 3}],
}  # fmt: skip
NEEDED = {
    "dots1": {"n_shared_experts": 2, "n_routed_experts": 8, "num_experts_per_tok": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dbrx": {"attn_config": {"rope_theta": 5e5}, "ffn_config": {"moe_top_k": 2}},
}
"""What some classes cannot be built without."""


def built(model_type: str, settings: dict[str, Any]) -> int:
    """Parameters of the class that a gradient reaches: ERNIE keeps the bias that balances among the others."""
    config_class = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]
    keys = {key: value for key, value in settings.items() if key != "model_type"}
    config = config_class(**keys)
    with torch.device("meta"):
        model = getattr(transformers, FAMILIES[model_type].class_name)(config)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def read(model_type: str, settings: dict[str, Any]) -> int:
    return int(count_parameters(read_huggingface({**settings, "model_type": model_type}, model_type)).params_total)


def test_every_class_is_tried() -> None:
    assert set(ODD) == set(CLASSES)


@pytest.mark.parametrize(("model_type", "index"), [(name, i) for name in CLASSES for i in range(len(ODD[name]))])
@pytest.mark.filterwarnings("ignore")
def test_odd_sizes_and_options_are_counted_as_built(model_type: str, index: int) -> None:
    assert read(model_type, ODD[model_type][index]) == built(model_type, ODD[model_type][index])


@pytest.mark.slow
@pytest.mark.parametrize("model_type", CLASSES)
@pytest.mark.filterwarnings("ignore")
def test_the_defaults_are_the_class_s(model_type: str) -> None:
    needed = NEEDED.get(model_type, {})
    assert read(model_type, needed) == built(model_type, needed)
    config = transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type](**needed)
    computed = {"rope_parameters", "sliding_window", "sliding_window_pattern", "moe_layer_end_index"}
    for key, value in FAMILIES[model_type].defaults.items():
        if value is not None and key not in computed | set(needed) and key != "partial_rotary_factor":
            assert getattr(config, key) == value, key
    if model_type != "dbrx":
        given = config.rope_parameters.get("full_attention", config.rope_parameters)
        assert read_huggingface({**needed, "model_type": model_type}).rope_theta == given["rope_theta"]
    for part, defaults in FAMILIES[model_type].parts.items():
        for key, value in defaults.items():
            assert key in needed.get(part, {}) or getattr(getattr(config, part), key) == value, key


@pytest.mark.slow
@pytest.mark.parametrize("preset", [name for name in PUBLISHED if name != "deepseek-moe-16b"])
@pytest.mark.filterwarnings("ignore")
def test_presets_are_counted_as_built(preset: str) -> None:
    model_type = {"kimi_k2": "deepseek_v3"}.get(PUBLISHED[preset]["model_type"], PUBLISHED[preset]["model_type"])
    assert count_parameters(load_preset(preset)).params_total == built(model_type, PUBLISHED[preset])
