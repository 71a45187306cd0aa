"""DeepSeek's classes and those with its router: DeepSeekMoE, DeepSeek-V2 and V3 (Kimi-K2), GLM-4-MoE, dots.llm1."""

from typing import Any

from moelab.architecture.huggingface import blocks, layers
from moelab.architecture.huggingface.rotary import rotary
from moelab.architecture.huggingface.settings import Settings


def _experts(s: Settings, moe: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The model with experts after the first dense layers; with neither, a dense one."""
    n_layers, first = s.count("num_hidden_layers"), s.count("first_k_dense_replace", 0)
    if s.has("moe_layer_freq"):
        s.only("moe_layer_freq", 1, [int(layer >= first) for layer in range(n_layers)])
    if first >= n_layers:
        return {**own, "d_ff": s.count("intermediate_size")}
    sizes = blocks.experts(s, "n_routed_experts", "moe_intermediate_size")
    more = blocks.shared(s.count_or_none("n_shared_experts", 0) or 0, sizes["d_expert"])
    place = blocks.with_dense(s, {"n_dense_layers": first, "moe_every": 1})
    return {**own, **place, "moe": {**sizes, **more, **moe}}


def _sigmoid(s: Settings, *names: str) -> dict[str, Any]:
    """DeepSeek-V3's gates: sigmoid scores (or `names`), a balancing bias, groups of experts by their two best."""
    s.only("scoring_func", "sigmoid", *names)
    s.only("topk_method", "noaux_tc")
    return {
        "score": "sigmoid",
        "normalize_gates": s.flag("norm_topk_prob"),
        "routed_scaling": s.number("routed_scaling_factor"),
        "bias_update": blocks.BIAS_UPDATE,
        **blocks.groups(s, "top2"),
    }


def _softmax(s: Settings) -> dict[str, Any]:
    s.only("scoring_func", "softmax")
    scale = s.number("routed_scaling_factor")
    return {"score": "softmax", "normalize_gates": s.flag("norm_topk_prob"), "routed_scaling": scale}


def _latent(s: Settings) -> dict[str, Any]:
    """The backbone with latent attention, whose biases are those of the projections to latents and of the output."""
    mla = {name: s.count(name) for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}
    own = Settings({**s.values, "head_dim": mla["qk_nope_head_dim"]}, s.defaults, s.where)
    return {
        **blocks.sizes(own),
        **rotary(s, mla["qk_rope_head_dim"], blocks.ROPE_THETA),
        "attention_bias": s.flag("attention_bias"),
        "mla": {**mla, "q_lora_rank": s.count_or_none("q_lora_rank")},
    }


def _predictions(s: Settings, *keys: str) -> dict[str, Any]:
    """Multi-token-prediction modules, which the class leaves out of its totals."""
    return {"mtp_layers": s.count_or_none(s.first(*keys), 0) or None}


def deepseek(s: Settings) -> dict[str, Any]:
    """DeepSeekMoE 16B (arXiv 2401.06066): plain attention, softmax gates. transformers has no class of it."""
    return _experts(s, _softmax(s), {**blocks.backbone(s), "attention_bias": s.flag("attention_bias")})


def deepseek_v2(s: Settings) -> dict[str, Any]:
    """DeepseekV2ForCausalLM: groups of experts by their best (arXiv 2405.04434)."""
    s.only("mlp_bias", False)
    s.only("topk_method", "greedy", "group_limited_greedy")
    grouped = blocks.groups(s, "max") if s.get("topk_method") == "group_limited_greedy" else {}
    return _experts(s, {**_softmax(s), **grouped}, {**_latent(s), "rope_interleaved": True})


def deepseek_v3(s: Settings) -> dict[str, Any]:
    """DeepseekV3ForCausalLM (arXiv 2412.19437); Kimi-K2 and Moonlight are of this class."""
    own = {**_latent(s), "rope_interleaved": s.flag("rope_interleave") or None}
    return {**_experts(s, _sigmoid(s), own), **_predictions(s, "num_nextn_predict_layers", "num_mtp_layers")}


def glm4_moe(s: Settings) -> dict[str, Any]:
    """Glm4MoeForCausalLM (GLM-4.5, arXiv 2508.06471): half of each head turns; the output projection has no bias."""
    own = {
        **blocks.backbone(s),
        "attention_bias": "qkv" if s.flag("attention_bias") else False,
        "qk_norm": "head" if s.flag("use_qk_norm") else "none",
    }
    return {**_experts(s, _sigmoid(s), own), **_predictions(s, "num_nextn_predict_layers", "num_mtp_layers")}


def dots1(s: Settings) -> dict[str, Any]:
    """Dots1ForCausalLM (arXiv 2506.05767)."""
    own = {**blocks.backbone(s), "attention_bias": s.flag("attention_bias"), "qk_norm": "head"}
    return _experts(s, _sigmoid(s, "noaux_tc"), {**own, **layers.windows(s, layers.kinds_of(s, layers.after(s)))})
