"""Today's families against transformers: the same weights give the same logits, loss and gradients, to 1e-5."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

CheckFamily = Callable[[str, dict[str, Any], dict[str, Any]], None]
ReadTheirs = Callable[[str, dict[str, Any], dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]]

MLA = {"kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 10}
YARN = {"kind": "yarn", "factor": 8.0, "original_context": 16}
THEIR_YARN = {"factor": 8.0, "original_max_position_embeddings": 16}


class Case(NamedTuple):
    """One family: its class, and what ours and theirs change in the sizes of conftest; `unset` takes sizes out."""

    model_type: str
    ours: dict[str, Any]
    theirs: dict[str, Any]


def rope(kind: str = "default", theta: float = 10_000.0, **options: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **options}


GEMMA: dict[str, Any] = {
    "norm": "rms_plus_one", "norm_position": "both", "activation": "geglu", "embedding_scale": 32**0.5,
    "sliding_window": 8,
}  # fmt: skip
LLAMA3 = {"kind": "llama3", "factor": 8.0, "original_context": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DEEPSEEK: dict[str, Any] = {"rope_interleaved": True, "tie_embeddings": False, "n_kv_heads": 4, "head_dim": 8}
THEIR_DEEPSEEK: dict[str, Any] = {
    "unset": ("head_dim",),
    "num_key_value_heads": 4, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 10,
    "first_k_dense_replace": 4, "num_mtp_layers": 0, "n_routed_experts": 8,
}  # fmt: skip

CASES = {
    "Llama 3.1": Case(
        model_type="llama", ours={"qk_norm": "none", "rope_scaling": LLAMA3},
        theirs={
            "tie_word_embeddings": True,
            "rope_parameters": rope(
                "llama3", factor=8.0, original_max_position_embeddings=32, low_freq_factor=1.0, high_freq_factor=4.0
            ),
        },
    ),
    "Mistral": Case(
        model_type="mistral", ours={"qk_norm": "none", "sliding_window": 7, "tie_embeddings": False},
        theirs={"sliding_window": 7, "rope_parameters": rope()},
    ),
    "Gemma 2": Case(
        model_type="gemma2",
        ours={
            **GEMMA, "qk_norm": "none", "sliding_pattern": ["window", "full"], "attention_softcap": 2.0,
            "logit_softcap": 1.5, "attention_scale": 0.5,
        },
        theirs={
            "sliding_window": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5,
            "query_pre_attn_scalar": 4, "rope_parameters": rope(), "tie_word_embeddings": True,
        },
    ),
    "Gemma 3": Case(
        model_type="gemma3_text",
        ours={
            **GEMMA, "sliding_pattern": ["window", "window", "full"], "sliding_rope_theta": 100.0,
            "rope_scaling": {"kind": "linear", "factor": 4.0}, "attention_scale": 16**-0.5,
        },
        theirs={
            "sliding_window": 8, "query_pre_attn_scalar": 16, "sliding_window_pattern": 3, "tie_word_embeddings": True,
            "rope_parameters": {"full_attention": rope("linear", factor=4.0), "sliding_attention": rope(theta=100.0)},
        },
    ),
    "OLMo 2": Case(
        model_type="olmo2", ours={"qk_norm": "full", "norm_position": "post", "tie_embeddings": False, "head_dim": 8},
        theirs={"head_dim": 8, "rope_parameters": rope(), "rms_norm_eps": 1e-6},
    ),
    "Llama 4": Case(
        model_type="llama4_text",
        ours={
            "qk_norm": "l2", "rope_interleaved": True, "rope_pattern": ["rope", "rope", "rope", "none"],
            "sliding_window": 8, "sliding_pattern": ["chunk", "chunk", "chunk", "full"], "tie_embeddings": False,
            "attention_temperature": {"scale": 0.2, "floor": 5},
            "rope_scaling": {**LLAMA3, "factor": 16.0, "high_freq_factor": 1.0},
        },
        theirs={
            "intermediate_size_mlp": 24, "moe_layers": [], "attention_chunk_size": 8, "floor_scale": 5,
            "attn_scale": 0.2, "rms_norm_eps": 1e-6,
            "rope_parameters": rope(
                "llama3", factor=16.0, original_max_position_embeddings=32, low_freq_factor=1.0, high_freq_factor=1.0
            ),
        },
    ),
    "DeepSeek-V3": Case(
        model_type="deepseek_v3",
        ours={
            **DEEPSEEK, "mla": {**MLA, "q_lora_rank": 14},
            "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7},
        },
        theirs={
            **THEIR_DEEPSEEK, "q_lora_rank": 14,
            "rope_parameters": rope("yarn", **THEIR_YARN, mscale=1.0, mscale_all_dim=0.7),
        },
    ),
    "DeepSeek-V3, halves, biases": Case(
        model_type="deepseek_v3",
        ours={**DEEPSEEK, "mla": {**MLA, "q_lora_rank": 14}, "rope_interleaved": None, "attention_bias": True},
        theirs={
            **THEIR_DEEPSEEK, "q_lora_rank": 14, "rope_interleave": False, "attention_bias": True,
            "rope_parameters": rope(),
        },
    ),
    "DeepSeek-V2": Case(
        model_type="deepseek_v2", ours={**DEEPSEEK, "mla": MLA},
        theirs={**THEIR_DEEPSEEK, "q_lora_rank": None, "rope_parameters": rope()},
    ),
    "GLM-4-MoE": Case(
        model_type="glm4_moe", ours={"rotary_dim": 6, "attention_bias": "qkv", "tie_embeddings": False},
        theirs={
            "attention_bias": True, "use_qk_norm": True, "first_k_dense_replace": 4, "rms_norm_eps": 1e-6,
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
    ),
    "Qwen3-Next": Case(
        model_type="qwen3_next",
        ours={
            "norm": "rms_plus_one", "attention_gate": "element", "rotary_dim": 6, "tie_embeddings": False,
        },
        theirs={
            "layer_types": ["full_attention"] * 4, "mlp_only_layers": [0, 1, 2, 3],
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
    ),
    "gpt-oss": Case(
        model_type="gpt_oss",
        ours={
            "qk_norm": "none", "attention_bias": True, "attention_sinks": True, "sliding_window": 5,
            "sliding_pattern": ["window", "full"], "activation": "clamped_swiglu", "swiglu_limit": 0.8,
            "tie_embeddings": False, "rope_scaling": {**YARN, "truncate": False},
        },
        theirs={
            "sliding_window": 5, "num_local_experts": 2, "rms_norm_eps": 1e-6,
            "rope_parameters": rope("yarn", **THEIR_YARN, truncate=False),
        },
    ),
    "Phi-3.5-MoE": Case(
        model_type="phimoe",
        ours={
            "qk_norm": "none", "attention_bias": True, "norm": "layer", "norm_bias": True, "head_bias": True,
            "tie_embeddings": False, "head_dim": 8,
        },
        theirs={
            "attention_bias": True, "lm_head_bias": True, "num_local_experts": 2, "rms_norm_eps": 1e-6,
            "unset": ("head_dim",),
            "rope_parameters": rope(),
        },
    ),
    "DBRX": Case(
        model_type="dbrx",
        ours={
            "qk_norm": "none", "clip_qkv": 0.7, "norm": "layer", "norm_eps": 1e-5, "head_dim": 8,
            "tie_embeddings": False,
        },
        theirs={
            "d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 64, "rope_parameters": rope(),
            "attn_config": {"clip_qkv": 0.7, "kv_n_heads": 2, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 2, "hidden_size": 32},
            "unset": (
                "head_dim", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "intermediate_size", "max_position_embeddings",
            ),
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_family_equals_transformers(name: str, check_family: CheckFamily) -> None:
    check_family(*CASES[name])


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("Qwen3-Next", "gpt-oss", "DBRX")])
def test_their_config_reads_as_ours(
    name: str, read_theirs: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """The reader of config.json and the modules mean the same; of classes that are MoE beyond the layers compared here
    only attention and norms count."""
    ours, found = read_theirs(*CASES[name])
    left_out = {"moe", "d_ff", "mtp_layers", *(("qk_norm", "head_dim") if ours.get("mla") else ())}
    assert {k: v for k, v in found.items() if k not in left_out} == {k: v for k, v in ours.items() if k not in left_out}
