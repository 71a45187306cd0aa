"""What classes of transformers demand of the values of options that they have: reasons, empty where all fits."""

import math

from moelab.architecture import ModelConfig

GEMMA = ("activation", "norm", "norm_position", "embedding_scale")
"""What every Gemma 2 and 3 has: GELU gates, 1 + weight norms on both sides of the blocks, scaled embeddings."""
GPT_OSS = ("activation", "swiglu_limit", "attention_sinks", "router_bias", "expert_bias")
"""What every gpt-oss has."""
LATENT_EPS = 1e-6
"""The epsilon of the norms of latents in DeepSeek's classes, whatever the config gives."""
GPT_OSS_LIMIT = 7.0


def gemma(config: ModelConfig) -> list[str]:
    missing = []
    if config.activation != "geglu":
        missing.append(f"activation {config.activation} (it has geglu)")
    if config.norm != "rms_plus_one":
        missing.append(f"norm {config.norm} (it has rms_plus_one)")
    if config.norm_position != "both":
        missing.append(f"norm_position {config.norm_position} (it has both)")
    if not math.isclose(config.embedding_scale or 0, math.sqrt(config.d_model), rel_tol=1e-9):
        missing.append(f"embedding_scale other than the square root of d_model ({math.sqrt(config.d_model):.6g})")
    if not math.isclose(query_scalar(config) ** -0.5, config.attention_scale or config.head_dim**-0.5, rel_tol=1e-9):
        missing.append("attention_scale other than 1 over the square root of a whole number")
    return missing


def query_scalar(config: ModelConfig) -> int:
    """Gemma's `query_pre_attn_scalar`: scores are divided by its square root."""
    return config.head_dim if config.attention_scale is None else max(round(config.attention_scale**-2), 1)


def gpt_oss(config: ModelConfig) -> list[str]:
    return [] if config.activation == "clamped_swiglu" else [f"activation {config.activation} (it has clamped_swiglu)"]


def partial_rotary(config: ModelConfig) -> list[str]:
    dim = config.rotary_dim
    exact = dim is None or int(config.head_dim * (dim / config.head_dim)) == dim
    return [] if exact else ["rotary_dim that is no exact share of head_dim"]


def glm(config: ModelConfig) -> list[str]:
    return partial_rotary(config) + groups(config)


def groups(config: ModelConfig) -> list[str]:
    """DeepSeek-V3's choice of groups, by the sum of their two largest scores."""
    moe = config.moe
    if moe is None or moe.n_group is None:
        return []
    if moe.scores_groups_by != "top2":
        return ["group_score max (it has top2)"]
    return [] if moe.n_experts // moe.n_group > 1 else ["n_group of one expert each"]


def deepseek_v3(config: ModelConfig) -> list[str]:
    return _latents(config) + groups(config)


def deepseek_v2(config: ModelConfig) -> list[str]:
    moe = config.moe
    by_two = moe is not None and moe.n_group is not None and moe.scores_groups_by != "max"
    return _latents(config) + (["group_score top2 (it has max)"] if by_two else [])


def _latents(config: ModelConfig) -> list[str]:
    if config.norm_eps == LATENT_EPS:
        return []
    return [f"norm_eps other than {LATENT_EPS:g} (its norms of latents always have that)"]
