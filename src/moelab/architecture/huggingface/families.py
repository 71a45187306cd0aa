"""The classes of transformers that moelab reads, by `model_type`: their defaults and what their settings mean.

Defaults are those of transformers 5.23; a test holds them against the classes, and the totals against modules built
without memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moelab.architecture.huggingface import deepseek, dense, moe
from moelab.architecture.huggingface.blocks import BACKBONE
from moelab.architecture.huggingface.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Family:
    """One class: its name in transformers (empty where that has none), the values of missing keys, and the reader,
    which returns the fields of a `ModelConfig`. `parts` are the defaults of mappings inside the config."""

    class_name: str
    defaults: Mapping[str, Any]
    read: Callable[[Settings], dict[str, Any]]
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _family(class_name: str, read: Callable[[Settings], dict[str, Any]], **defaults: Any) -> Family:
    return Family(class_name=class_name, read=read, defaults={**BACKBONE, **defaults})


def _sizes(vocab: int, width: int, ffn: int, depth: int, heads: int, kv: int | None = None) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
    }


_WINDOWS = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None}
_DEEPSEEK = {"attention_bias": False, "first_k_dense_replace": 0, "routed_scaling_factor": 1.0}
_QWEN_MOE = {
    "decoder_sparse_step": 1,
    "norm_topk_prob": False,
    "mlp_only_layers": None,
    "use_sliding_window": False,
    "sliding_window": 4096,
}
_GEMMA: dict[str, Any] = {
    **_sizes(256_000, 2304, 9216, 26, 8, 4),
    "head_dim": 256,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
}
_V3: dict[str, Any] = {
    **_DEEPSEEK,
    **_sizes(129_280, 7168, 18_432, 61, 128, 128),
    "max_position_embeddings": 4096,
    "moe_intermediate_size": 2048,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "qk_nope_head_dim": 128,
    "n_group": 8,
    "topk_group": 4,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "rope_interleave": True,
    "num_nextn_predict_layers": 1,
}

FAMILIES: dict[str, Family] = {
    "llama": _family(
        "LlamaForCausalLM", dense.llama, **_sizes(32_000, 4096, 11_008, 32, 32),
        max_position_embeddings=2048, attention_bias=False, mlp_bias=False,
    ),
    "mistral": _family(
        "MistralForCausalLM", dense.mistral, **_sizes(32_000, 4096, 14_336, 32, 32, 8),
        max_position_embeddings=131_072, sliding_window=4096,
    ),
    "qwen2": _family(
        "Qwen2ForCausalLM", dense.qwen2, **_sizes(151_936, 4096, 22_016, 32, 32, 32), **_WINDOWS,
        max_position_embeddings=32_768,
    ),
    "qwen3": _family(
        "Qwen3ForCausalLM", dense.qwen3, **_sizes(151_936, 4096, 22_016, 32, 32, 32), **_WINDOWS,
        max_position_embeddings=32_768, head_dim=128, attention_bias=False,
    ),
    "olmo2": _family(
        "Olmo2ForCausalLM", dense.olmo2, **_sizes(50_304, 4096, 11_008, 32, 32),
        max_position_embeddings=2048, rms_norm_eps=1e-5, attention_bias=False,
    ),
    "olmo3": _family(
        "Olmo3ForCausalLM", dense.olmo3, **_sizes(50_304, 4096, 11_008, 32, 32),
        max_position_embeddings=2048, rms_norm_eps=1e-5, attention_bias=False, sliding_window=4096, layer_types=None,
    ),
    "gemma2": _family(
        "Gemma2ForCausalLM", dense.gemma2, **{
            **_GEMMA, "max_position_embeddings": 8192,
            "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
        },
    ),
    "gemma3_text": _family(
        "Gemma3ForCausalLM", dense.gemma3, **{
            **_GEMMA, "vocab_size": 262_208, "max_position_embeddings": 131_072, "sliding_window_pattern": 6,
        },
    ),
    "mixtral": _family(
        "MixtralForCausalLM", moe.mixtral, **_sizes(32_000, 4096, 14_336, 32, 32, 8), rms_norm_eps=1e-5,
        max_position_embeddings=131_072, sliding_window=None, num_experts_per_tok=2, num_local_experts=8,
    ),
    "qwen2_moe": _family(
        "Qwen2MoeForCausalLM", moe.qwen2_moe, **_sizes(151_936, 2048, 5632, 24, 16, 16), **_QWEN_MOE,
        max_position_embeddings=32_768, max_window_layers=28, layer_types=None, qkv_bias=True,
        moe_intermediate_size=1408, shared_expert_intermediate_size=5632, num_experts_per_tok=4, num_experts=60,
    ),
    "qwen3_moe": _family(
        "Qwen3MoeForCausalLM", moe.qwen3_moe, **_sizes(151_936, 2048, 6144, 24, 32, 4), **_QWEN_MOE,
        max_position_embeddings=32_768, attention_bias=False,
        moe_intermediate_size=768, num_experts_per_tok=8, num_experts=128,
    ),
    "olmoe": _family(
        "OlmoeForCausalLM", moe.olmoe, **_sizes(50_304, 2048, 2048, 16, 16), rms_norm_eps=1e-5,
        max_position_embeddings=4096, attention_bias=False, clip_qkv=None,
        num_experts_per_tok=8, num_experts=64, norm_topk_prob=False,
    ),
    "phimoe": _family(
        "PhimoeForCausalLM", moe.phimoe, **_sizes(32_064, 4096, 6400, 32, 32, 8), rms_norm_eps=1e-5,
        max_position_embeddings=131_072, sliding_window=None, attention_bias=False, lm_head_bias=False,
        num_experts_per_tok=2, num_local_experts=16,
    ),
    "dbrx": Family(
        class_name="DbrxForCausalLM", read=moe.dbrx,
        defaults={
            "vocab_size": 32_000, "d_model": 2048, "n_heads": 16, "n_layers": 24, "tie_word_embeddings": False,
        },
        parts={
            "attn_config": {"kv_n_heads": 1, "clip_qkv": None},
            "ffn_config": {
                "ffn_hidden_size": 3584, "moe_num_experts": 4, "moe_top_k": 1, "moe_normalize_expert_weights": 1.0,
            },
        },
    ),
    "gpt_oss": _family(
        "GptOssForCausalLM", moe.gpt_oss, **{
            **_sizes(201_088, 2880, 2880, 36, 64, 8), "head_dim": 64, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131_072, "sliding_window": 128, "layer_types": None, "attention_bias": True,
            "num_local_experts": 128, "num_experts_per_tok": 4, "swiglu_alpha": 1.702, "swiglu_limit": 7.0,
            "rope_parameters": {
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        },
    ),
    "llama4_text": _family(
        "Llama4ForCausalLM", moe.llama4, **_sizes(202_048, 5120, 8192, 48, 40, 8), head_dim=128, rms_norm_eps=1e-5,
        max_position_embeddings=131_072, intermediate_size_mlp=16_384, num_experts_per_tok=1, num_local_experts=16,
        moe_layers=None, interleave_moe_layer_step=1, use_qk_norm=True, no_rope_layers=None, no_rope_layer_interval=4,
        attention_chunk_size=8192, layer_types=None, attn_temperature_tuning=True, floor_scale=8192, attn_scale=0.1,
        attention_bias=False,
    ),
    "minimax_m2": _family(
        "MiniMaxM2ForCausalLM", moe.minimax_m2, **_sizes(200_064, 3072, 1536, 62, 48, 8), head_dim=128,
        max_position_embeddings=196_608, num_experts_per_tok=8, num_local_experts=256,
    ),
    "ernie4_5_moe": _family(
        "Ernie4_5_MoeForCausalLM", moe.ernie, **{
            **_sizes(103_424, 2560, 12_288, 28, 20, 4), "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
            "max_position_embeddings": 131_072, "use_bias": False, "moe_intermediate_size": 1536, "moe_k": 6,
            "moe_num_experts": 64, "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "moe_layer_end_index": -1,
            "moe_layer_interval": 1,
        },
    ),
    "deepseek": _family(
        "", deepseek.deepseek, **_DEEPSEEK, max_position_embeddings=2048, n_shared_experts=None, norm_topk_prob=False,
    ),
    "deepseek_v2": _family(
        "DeepseekV2ForCausalLM", deepseek.deepseek_v2, **_DEEPSEEK, **_sizes(102_400, 4096, 11_008, 32, 32),
        max_position_embeddings=2048, mlp_bias=False, kv_lora_rank=512, q_lora_rank=1536, n_group=None,
        n_routed_experts=64, n_shared_experts=2, qk_nope_head_dim=128, qk_rope_head_dim=64, topk_group=None,
        topk_method="greedy", norm_topk_prob=False, v_head_dim=128, num_experts_per_tok=None,
        moe_intermediate_size=1407,
    ),
    "deepseek_v3": _family("DeepseekV3ForCausalLM", deepseek.deepseek_v3, **_V3),
    "glm4_moe": _family(
        "Glm4MoeForCausalLM", deepseek.glm4_moe, **{
            **_DEEPSEEK, **_sizes(151_552, 4096, 10_944, 46, 96, 8), "rms_norm_eps": 1e-5,
            "max_position_embeddings": 131_072, "partial_rotary_factor": 0.5, "moe_intermediate_size": 1408,
            "num_experts_per_tok": 8, "n_shared_experts": 1, "n_routed_experts": 128, "n_group": 1, "topk_group": 1,
            "first_k_dense_replace": 1, "norm_topk_prob": True, "use_qk_norm": False, "num_nextn_predict_layers": 1,
        },
    ),
    "dots1": _family(
        "Dots1ForCausalLM", deepseek.dots1, **_DEEPSEEK, **_sizes(152_064, 4608, 10_944, 62, 32, 32),
        max_position_embeddings=2048, moe_intermediate_size=1408, n_shared_experts=None, n_routed_experts=None,
        n_group=1, topk_group=1, num_experts_per_tok=None, norm_topk_prob=False, sliding_window=4096,
        max_window_layers=62, layer_types=None,
    ),
}  # fmt: skip
"""By `model_type`."""

ALIASES = {"kimi_k2": "deepseek_v3", "gemma3": "gemma3_text", "llama4": "llama4_text", "ministral": "mistral"}
"""Other names of the same text models; multimodal configs keep theirs under `text_config`."""
