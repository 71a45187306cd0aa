"""What no architecture of moelab is, by the key of config.json that gives it away."""

from collections.abc import Mapping
from typing import Any

KEYS = {
    "is_encoder_decoder": "an encoder and a decoder",
    "encoder_layers": "an encoder and a decoder",
    "linear_attn_config": "linear attention",
    "linear_num_key_heads": "linear attention",
    "linear_num_value_heads": "linear attention",
    "linear_conv_kernel_dim": "linear attention",
    "full_attention_interval": "linear attention between full attention",
    "index_topk": "attention to a sparse selection of tokens",
    "index_n_heads": "attention to a sparse selection of tokens",
    "sparse_attention_config": "attention to a sparse selection of tokens",
    "compress_ratios": "compressed attention",
    "compress_rates": "compressed attention",
    "compress_ratio": "compressed attention",
    "layers_block_type": "blocks of several types (Mamba, attention)",
    "block_types": "blocks of several types",
    "hybrid_override_pattern": "blocks of several types (Mamba, attention)",
    "attn_layer_period": "Mamba layers between attention",
    "mamba_d_state": "Mamba layers",
    "mamba_d_ssm": "Mamba layers",
    "mamba_n_heads": "Mamba layers",
    "mamba_num_heads": "Mamba layers",
    "state_size": "a state-space model",
    "ssm_cfg": "a state-space model",
    "time_mix_extra_dim": "a recurrent model",
    "zero_expert_num": "experts that compute nothing",
    "zero_expert_type": "experts that compute nothing",
}
"""Keys that a config has only where the model has such parts."""

TYPES = {
    "mamba": "a state-space model",
    "mamba2": "a state-space model",
    "qwen3_next": "linear attention in most layers",
    "qwen3_5_text": "linear attention in most layers",
    "qwen3_5_moe_text": "linear attention in most layers",
    "kimi_linear": "linear attention in most layers",
    "minimax": "linear attention in most layers",
    "deepseek_v32": "attention to a sparse selection of tokens",
    "deepseek_v4": "compressed attention",
    "jamba": "Mamba layers between attention",
    "bamba": "Mamba layers between attention",
    "nemotron_h": "Mamba layers between attention",
    "falcon_h1": "Mamba layers beside attention",
    "granitemoehybrid": "Mamba layers between attention",
    "bert": "attention in both directions",
    "t5": "an encoder and a decoder",
    "gpt2": "learned position embeddings",
    "gemma3n_text": "per-layer embeddings",
}
"""Types of models that are refused without such a key."""


def refused(values: Mapping[str, Any], model_type: str) -> tuple[str, str] | None:
    """The key of what moelab cannot represent, and the words for it; None where there is none."""
    for key, what in KEYS.items():
        if values.get(key) not in (None, False, 0, [], {}):
            return key, what
    kinds = values.get("attn_type_list")
    if isinstance(kinds, list) and any(kind != 1 for kind in kinds):
        return "attn_type_list", "linear attention (0) between full attention (1)"
    return ("model_type", TYPES[model_type]) if model_type in TYPES else None
