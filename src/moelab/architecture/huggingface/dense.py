"""Dense classes: Llama, Mistral, Qwen2, Qwen3, OLMo 2 and 3, Gemma 2 and 3."""

import math
from typing import Any

from moelab.architecture.huggingface import blocks, layers, rotary
from moelab.architecture.huggingface.settings import Settings


def llama(s: Settings) -> dict[str, Any]:
    """LlamaForCausalLM."""
    s.only("mlp_bias", False)
    return {**blocks.dense(s), "attention_bias": s.flag("attention_bias")}


def mistral(s: Settings) -> dict[str, Any]:
    """MistralForCausalLM: every layer has the window."""
    return {**blocks.dense(s), **layers.windows(s, layers.kinds_of(s, layers.every_layer(s)))}


def _late_windows(s: Settings) -> dict[str, Any]:
    if not s.flag("use_sliding_window"):
        return {}
    return layers.windows(s, layers.kinds_of(s, layers.after(s)))


def qwen2(s: Settings) -> dict[str, Any]:
    """Qwen2ForCausalLM: biases on queries, keys and values."""
    return {**blocks.dense(s), "attention_bias": "qkv", **_late_windows(s)}


def qwen3(s: Settings) -> dict[str, Any]:
    """Qwen3ForCausalLM."""
    return {
        **blocks.dense(s),
        "attention_bias": s.flag("attention_bias"),
        "qk_norm": "head",
        **_late_windows(s),
    }


def olmo2(s: Settings) -> dict[str, Any]:
    """Olmo2ForCausalLM: norms after the blocks, and of queries and keys over all heads."""
    own = {"attention_bias": s.flag("attention_bias"), "qk_norm": "full", "norm_position": "post"}
    return {**blocks.dense(s), **own}


def olmo3(s: Settings) -> dict[str, Any]:
    """Olmo3ForCausalLM: OLMo 2 with windows, whose positions are not scaled."""
    own = {"attention_bias": s.flag("attention_bias"), "qk_norm": "full", "norm_position": "post"}
    local = layers.windows(s, layers.kinds_of(s, layers.alternating(s, 4)))
    turned = rotary.rotary_by_kind(s, 500_000.0)
    if not local:
        turned.pop("sliding_rope_theta")
    return {**blocks.sizes(s), "d_ff": s.count("intermediate_size"), **turned, **local, **own}


def _gemma(s: Settings) -> dict[str, Any]:
    """(1 + w) norms before and after, scaled embeddings, a scale of scores and caps."""
    s.only("use_bidirectional_attention", False)
    common = blocks.sizes(s, "hidden_activation")
    scale = s.number("query_pre_attn_scalar")
    return {
        **common,
        "d_ff": s.count("intermediate_size"),
        "attention_bias": s.flag("attention_bias"),
        "norm": "rms_plus_one",
        "norm_position": "both",
        "embedding_scale": math.sqrt(common["d_model"]),
        "attention_scale": None if scale == common["head_dim"] else scale**-0.5,
        "attention_softcap": s.number_or_none("attn_logit_softcapping"),
        "logit_softcap": s.number_or_none("final_logit_softcapping"),
    }


def gemma2(s: Settings) -> dict[str, Any]:
    """Gemma2ForCausalLM: every second layer has a window."""
    common = _gemma(s)
    turned = rotary.rotary(s, common["head_dim"], blocks.ROPE_THETA)
    return {**common, **turned, **layers.windows(s, layers.kinds_of(s, layers.alternating(s, 2)))}


def gemma3(s: Settings) -> dict[str, Any]:
    """Gemma3ForCausalLM: five layers of six have a window, with a rotary base of their own."""
    local = layers.windows(s, layers.kinds_of(s, layers.alternating(s, s.count("sliding_window_pattern"))))
    turned = rotary.rotary_by_kind(s, 1_000_000.0, 10_000.0)
    if not local:
        turned.pop("sliding_rope_theta")
    return {**_gemma(s), "qk_norm": "head", **turned, **local}
