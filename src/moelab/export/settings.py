"""What each class of transformers wants to read in config.json beside what all of them read."""

from typing import Any

from moelab.architecture import ModelConfig, MoEConfig
from moelab.architecture.attention import RopeScaling
from moelab.export.details import query_scalar

Settings = dict[str, Any]
SWIGLU_ALPHA = 1.702
"""gpt-oss's `clamped_swiglu` gates by sigmoid(1.702 gate), as moelab's does."""


def _dense_indices(config: ModelConfig) -> list[int]:
    return [layer for layer in range(config.n_layers) if not config.is_moe_layer(layer)]


def _moe(config: ModelConfig) -> MoEConfig:
    assert config.moe is not None
    return config.moe


def _dense(config: ModelConfig) -> Settings:
    return {"intermediate_size": config.d_ff, "attention_bias": bool(config.attention_bias)}


def rope_parameters(config: ModelConfig, theta: float | None = None, scaling: RopeScaling | None = None) -> Settings:
    """How the classes read rotary positions: the model's, or those of a base and a scaling given here."""
    if theta is None:
        theta, scaling = config.rope_theta, config.rope_scaling
    found: Settings = {"rope_type": "default", "rope_theta": theta}
    found["partial_rotary_factor"] = (config.rotary_dim or config.head_dim) / config.head_dim
    if scaling is None:
        return found
    fields = scaling.to_dict()
    found["rope_type"] = fields.pop("kind")
    if "original_context" in fields:
        found["original_max_position_embeddings"] = fields.pop("original_context")
    return {**found, **fields}


def _windows(config: ModelConfig) -> Settings:
    """For classes that name the kind of every layer."""
    kinds = [config.layer_kind(layer) for layer in range(config.n_layers)]
    names = {"full": "full_attention", "window": "sliding_attention"}
    return {"sliding_window": config.sliding_window, "layer_types": [names[kind] for kind in kinds]}


def llama(config: ModelConfig) -> Settings:
    return {**_dense(config), "mlp_bias": False}


def qwen3(config: ModelConfig) -> Settings:
    return {**qwen2(config), "attention_bias": bool(config.attention_bias)}


def qwen2(config: ModelConfig) -> Settings:
    windowed = config.sliding_window is not None
    return {"intermediate_size": config.d_ff, "use_sliding_window": windowed, **_windows(config)}


def mistral(config: ModelConfig) -> Settings:
    return {"intermediate_size": config.d_ff, "sliding_window": config.sliding_window}


def _gemma(config: ModelConfig) -> Settings:
    own = {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": query_scalar(config)}
    caps = {"attn_logit_softcapping": config.attention_softcap, "final_logit_softcapping": config.logit_softcap}
    return {**_dense(config), **own, **caps, **_windows(config), "sliding_window": config.sliding_window or 4096}


def gemma2(config: ModelConfig) -> Settings:
    return _gemma(config)


def gemma3(config: ModelConfig) -> Settings:
    local = config.sliding_rope_theta
    sliding = rope_parameters(config) if local is None else rope_parameters(config, local)
    return {
        **_gemma(config),
        "rope_parameters": {"full_attention": rope_parameters(config), "sliding_attention": sliding},
    }


def _flat(config: ModelConfig) -> Settings:
    """Classes whose every layer is MoE call the experts' width `intermediate_size`."""
    moe = _moe(config)
    return {"intermediate_size": moe.d_expert, "num_experts_per_tok": moe.top_k}


def olmoe(config: ModelConfig) -> Settings:
    moe = _moe(config)
    own = {"num_experts": moe.n_experts, "norm_topk_prob": moe.normalize_gates, "clip_qkv": config.clip_qkv}
    return {**_flat(config), **own, "attention_bias": bool(config.attention_bias)}


def gpt_oss(config: ModelConfig) -> Settings:
    own = {"num_local_experts": _moe(config).n_experts, "attention_bias": bool(config.attention_bias)}
    limits = {"swiglu_limit": config.swiglu_limit, "swiglu_alpha": SWIGLU_ALPHA}
    return {**_flat(config), **own, **limits, **_windows(config), "sliding_window": config.sliding_window or 128}


def mixtral(config: ModelConfig) -> Settings:
    return {**_flat(config), "num_local_experts": _moe(config).n_experts, "sliding_window": config.sliding_window}


def minimax(config: ModelConfig) -> Settings:
    own = {"num_local_experts": _moe(config).n_experts, "rotary_dim": config.rotary_dim or config.head_dim}
    return {**_flat(config), **own, "scoring_func": "sigmoid"}


def _qwen_moe(config: ModelConfig) -> Settings:
    moe = _moe(config)
    return {
        "intermediate_size": config.d_ff or moe.reference_width,
        "moe_intermediate_size": moe.d_expert,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": moe.normalize_gates,
        "decoder_sparse_step": 1,
        "mlp_only_layers": _dense_indices(config),
        "use_sliding_window": config.sliding_window is not None,
        "sliding_window": config.sliding_window,
    }


def qwen2_moe(config: ModelConfig) -> Settings:
    shared = {"shared_expert_intermediate_size": _moe(config).d_shared, "qkv_bias": bool(config.attention_bias)}
    return {**_qwen_moe(config), **shared, **_windows(config)}


def qwen3_moe(config: ModelConfig) -> Settings:
    return {**_qwen_moe(config), "attention_bias": bool(config.attention_bias)}


def ernie(config: ModelConfig) -> Settings:
    moe = _moe(config)
    return {
        "intermediate_size": config.d_ff or moe.reference_width,
        "moe_intermediate_size": moe.d_expert,
        "moe_num_experts": moe.n_experts,
        "moe_k": moe.top_k,
        "moe_num_shared_experts": moe.d_shared // moe.d_expert,
        "moe_layer_start_index": config.n_dense_layers,
        "moe_layer_end_index": config.n_layers - 1,
        "moe_layer_interval": 1,
        "moe_use_aux_free": True,
        "use_bias": False,
    }


def _deepseek_like(config: ModelConfig) -> Settings:
    """What the classes with DeepSeek's routers share."""
    moe = _moe(config)
    return {
        "intermediate_size": config.d_ff or moe.reference_width,
        "moe_intermediate_size": moe.d_expert,
        "n_routed_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "n_shared_experts": moe.d_shared // moe.d_expert,
        "first_k_dense_replace": config.n_dense_layers,
        "norm_topk_prob": moe.normalize_gates,
        "routed_scaling_factor": moe.routed_scaling,
        "n_group": moe.n_group or 1,
        "topk_group": moe.topk_group or 1,
        "attention_bias": bool(config.attention_bias),
    }


def glm(config: ModelConfig) -> Settings:
    share = rope_parameters(config)["partial_rotary_factor"]
    own = {"use_qk_norm": config.qk_norm == "head", "num_nextn_predict_layers": 0, "partial_rotary_factor": share}
    return {**_deepseek_like(config), **own}


def _latent(config: ModelConfig) -> Settings:
    assert config.mla is not None
    heads = {"num_key_value_heads": config.n_heads, "head_dim": config.mla.qk_rope_head_dim}
    sizes = {name: getattr(config.mla, name) for name in type(config.mla).model_fields}
    rope = {**rope_parameters(config), "partial_rotary_factor": 1.0}
    return {**_deepseek_like(config), **sizes, **heads, "rope_parameters": rope}


def deepseek_v3(config: ModelConfig) -> Settings:
    own = {"rope_interleave": bool(config.rope_interleaved), "num_nextn_predict_layers": 0, "scoring_func": "sigmoid"}
    return {**_latent(config), **own, "topk_method": "noaux_tc"}


def deepseek_v2(config: ModelConfig) -> Settings:
    grouped = _moe(config).n_group is not None
    return {**_latent(config), "topk_method": "group_limited_greedy" if grouped else "greedy", "mlp_bias": False}


def dots(config: ModelConfig) -> Settings:
    windows = _windows(config)
    return {**_deepseek_like(config), **windows, "max_window_layers": config.n_layers}
