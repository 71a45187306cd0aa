"""What each class of transformers wants to read in config.json beside what all of them read."""

from typing import Any

from moelab.architecture import ModelConfig, MoEConfig


def _dense_indices(config: ModelConfig) -> list[int]:
    return [layer for layer in range(config.n_layers) if not config.is_moe_layer(layer)]


def _moe(config: ModelConfig) -> MoEConfig:
    assert config.moe is not None
    return config.moe


def _dense(config: ModelConfig) -> dict[str, Any]:
    return {"intermediate_size": config.d_ff, "attention_bias": config.attention_bias}


def llama(config: ModelConfig) -> dict[str, Any]:
    return {**_dense(config), "mlp_bias": False}


def qwen3(config: ModelConfig) -> dict[str, Any]:
    return {**_dense(config), "use_sliding_window": False}


def _flat(config: ModelConfig) -> dict[str, Any]:
    """Classes whose every layer is MoE call the experts' width `intermediate_size`."""
    moe = _moe(config)
    return {"intermediate_size": moe.d_expert, "num_experts_per_tok": moe.top_k}


def olmoe(config: ModelConfig) -> dict[str, Any]:
    moe = _moe(config)
    own = {"num_experts": moe.n_experts, "norm_topk_prob": moe.normalize_gates, "clip_qkv": None}
    return {**_flat(config), **own, "attention_bias": config.attention_bias}


def mixtral(config: ModelConfig) -> dict[str, Any]:
    return {**_flat(config), "num_local_experts": _moe(config).n_experts, "sliding_window": None}


def minimax(config: ModelConfig) -> dict[str, Any]:
    own = {"num_local_experts": _moe(config).n_experts, "rotary_dim": config.head_dim}
    return {**_flat(config), **own, "scoring_func": "sigmoid"}


def _qwen_moe(config: ModelConfig) -> dict[str, Any]:
    moe = _moe(config)
    return {
        "intermediate_size": config.d_ff or moe.reference_width,
        "moe_intermediate_size": moe.d_expert,
        "num_experts": moe.n_experts,
        "num_experts_per_tok": moe.top_k,
        "norm_topk_prob": moe.normalize_gates,
        "decoder_sparse_step": 1,
        "mlp_only_layers": _dense_indices(config),
        "use_sliding_window": False,
    }


def qwen2_moe(config: ModelConfig) -> dict[str, Any]:
    shared = {"shared_expert_intermediate_size": _moe(config).d_shared, "qkv_bias": False}
    return {**_qwen_moe(config), **shared}


def qwen3_moe(config: ModelConfig) -> dict[str, Any]:
    return {**_qwen_moe(config), "attention_bias": config.attention_bias}


def ernie(config: ModelConfig) -> dict[str, Any]:
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


def _deepseek_like(config: ModelConfig) -> dict[str, Any]:
    """What the classes with DeepSeek-V3's router share: sigmoid scores, a bias, one group of experts."""
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
        "n_group": 1,
        "topk_group": 1,
        "attention_bias": config.attention_bias,
    }


def glm(config: ModelConfig) -> dict[str, Any]:
    own = {"use_qk_norm": config.qk_norm == "head", "num_nextn_predict_layers": 0, "partial_rotary_factor": 1.0}
    return {**_deepseek_like(config), **own}


def dots(config: ModelConfig) -> dict[str, Any]:
    return {**_deepseek_like(config), "sliding_window": None}
