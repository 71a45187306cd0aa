"""MoE classes whose experts are chosen by softmax, and those with a router of their own: Mixtral, Qwen, OLMoE, DBRX,
Phi-3.5-MoE, gpt-oss, Llama 4, MiniMax-M2, ERNIE-4.5."""

from typing import Any

from moelab.architecture.huggingface import blocks, layers
from moelab.architecture.huggingface.settings import Settings


def mixtral(s: Settings) -> dict[str, Any]:
    """MixtralForCausalLM."""
    return {
        **blocks.backbone(s, 1_000_000.0),
        **layers.windows(s, layers.every_layer(s)),
        "moe": {**blocks.experts(s, "num_local_experts", "intermediate_size"), "normalize_gates": True},
    }


def _qwen_layers(s: Settings) -> list[int]:
    step, n_layers = s.count("decoder_sparse_step"), s.count("num_hidden_layers")
    dense = s.whole_numbers("mlp_only_layers") or []
    return [layer for layer in range(n_layers) if layer not in dense and (layer + 1) % step == 0]


def _qwen(s: Settings, moe: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    moe_layers = _qwen_layers(s) if s.count("num_experts", 0) else []
    if not moe_layers:
        return {**blocks.dense(s), **own}
    place = layers.placement(s, s.first("mlp_only_layers", "decoder_sparse_step"), moe_layers)
    return {**blocks.backbone(s), **own, **blocks.with_dense(s, place), "moe": moe}


def _qwen_experts(s: Settings) -> dict[str, Any]:
    if not s.count("num_experts", 0):
        return {}
    common = blocks.experts(s, "num_experts", "moe_intermediate_size")
    return {**common, "normalize_gates": s.flag("norm_topk_prob")}


def qwen2_moe(s: Settings) -> dict[str, Any]:
    """Qwen2MoeForCausalLM: gated shared experts, biases on queries, keys and values; windows in every second layer."""
    width = s.count("shared_expert_intermediate_size")
    moe = {**_qwen_experts(s), **blocks.shared(1, width), "shared_gate": True}
    own: dict[str, Any] = {"attention_bias": "qkv" if s.flag("qkv_bias") else False}
    if s.flag("use_sliding_window"):
        last = s.count("max_window_layers", 0)
        other = [kind if i < last else "full" for i, kind in enumerate(layers.alternating(s, 2))]
        own |= layers.windows(s, layers.kinds_of(s, other))
    return _qwen(s, moe, own)


def qwen3_moe(s: Settings) -> dict[str, Any]:
    """Qwen3MoeForCausalLM: all layers have the window, where one is used."""
    own: dict[str, Any] = {"attention_bias": s.flag("attention_bias"), "qk_norm": "head"}
    if s.flag("use_sliding_window"):
        own |= layers.windows(s, layers.every_layer(s))
    return _qwen(s, _qwen_experts(s), own)


def olmoe(s: Settings) -> dict[str, Any]:
    """OlmoeForCausalLM."""
    moe = blocks.experts(s, "num_experts", "intermediate_size")
    return {
        **blocks.backbone(s),
        "attention_bias": s.flag("attention_bias"),
        "qk_norm": "full",
        "clip_qkv": s.number_or_none("clip_qkv"),
        "moe": {**moe, "normalize_gates": s.flag("norm_topk_prob")},
    }


def phimoe(s: Settings) -> dict[str, Any]:
    """PhimoeForCausalLM: LayerNorms, a bias on the head, and SparseMixer's gates (arXiv 2409.12136)."""
    moe = blocks.experts(s, "num_local_experts", "intermediate_size")
    return {
        **blocks.backbone(s, 1_000_000.0),
        **layers.windows(s, layers.every_layer(s)),
        "attention_bias": s.flag("attention_bias"),
        "norm": "layer",
        "norm_bias": True,
        "head_bias": s.flag("lm_head_bias") or None,
        "moe": {**moe, "score": "sparsemixer", "normalize_gates": False},
    }


def dbrx(s: Settings) -> dict[str, Any]:
    """DbrxForCausalLM: LayerNorms without biases, clipped queries, keys and values; its names are its own."""
    attention, ffn = s.inner("attn_config"), s.inner("ffn_config")
    ffn.only("moe_normalize_expert_weights", 1, 1.0)
    act = ffn.inner("ffn_act_fn")
    act.only("name", "silu")
    width, n_heads = s.count("d_model"), s.count("n_heads")
    if width % n_heads:
        s.wrong("d_model", f"a multiple of n_heads ({n_heads})")
    theta = attention.number_or_none("rope_theta") or s.number_or_none("rope_theta")
    return {
        "vocab_size": s.count("vocab_size"),
        "d_model": width,
        "n_layers": s.count("n_layers"),
        "n_heads": n_heads,
        "n_kv_heads": attention.count("kv_n_heads"),
        "head_dim": width // n_heads,
        "qk_norm": "none",
        "tie_embeddings": s.flag("tie_word_embeddings"),
        "rope_theta": theta or blocks.ROPE_THETA,
        "norm": "layer",
        "norm_eps": 1e-5,
        "clip_qkv": attention.number_or_none("clip_qkv"),
        "moe": {
            "n_experts": ffn.count("moe_num_experts"),
            "top_k": ffn.count("moe_top_k"),
            "d_expert": ffn.count("ffn_hidden_size"),
            "normalize_gates": ffn.get("moe_normalize_expert_weights") is not None,
        },
    }


def gpt_oss(s: Settings) -> dict[str, Any]:
    """GptOssForCausalLM: sinks, every second layer with a window, clamped experts with biases (arXiv 2508.10925)."""
    if s.get("swiglu_alpha") != 1.702:
        s.refuse("swiglu_alpha", "a clamped SwiGLU with another gain than 1.702")
    moe = blocks.experts(s, "num_local_experts", "intermediate_size")
    s.only("hidden_act", "silu")
    return {
        **blocks.backbone(s, 150_000.0),
        **layers.windows(s, layers.kinds_of(s, layers.alternating(s, 2))),
        "activation": "clamped_swiglu",
        "swiglu_limit": s.number("swiglu_limit"),
        "attention_bias": s.flag("attention_bias"),
        "attention_sinks": True,
        "moe": {**moe, "normalize_gates": True, "router_bias": True, "expert_bias": True},
    }


def llama4(s: Settings) -> dict[str, Any]:
    """Llama4ForCausalLM: chunks in layers with positions, gates on the experts' input."""
    with_positions = layers.positions(s)
    chunks = layers.kinds_of(s, ["chunk" if one == "rope" else "full" for one in with_positions])
    common = blocks.backbone(s, 500_000.0)
    own: dict[str, Any] = {
        "attention_bias": s.flag("attention_bias"),
        "qk_norm": "l2" if s.flag("use_qk_norm") else "none",
        "rope_interleaved": True,
        "rope_pattern": layers.shortest(with_positions) if "none" in with_positions else None,
        **layers.windows(s, chunks, "attention_chunk_size"),
    }
    if "none" in with_positions and s.flag("attn_temperature_tuning"):
        own["attention_temperature"] = {"scale": s.number("attn_scale"), "floor": s.count("floor_scale")}
    step, n_layers = s.count("interleave_moe_layer_step"), s.count("num_hidden_layers")
    given = s.whole_numbers("moe_layers")
    moe_layers = list(range(step - 1, n_layers, step)) if given is None else given
    if not moe_layers:
        return {**common, **own, "d_ff": s.count("intermediate_size_mlp")}
    key = s.first("moe_layers", "interleave_moe_layer_step")
    place = blocks.with_dense(s, layers.placement(s, key, moe_layers), "intermediate_size_mlp")
    moe = blocks.experts(s, "num_local_experts", "intermediate_size")
    gates = {"score": "sigmoid", "normalize_gates": False, "input_gates": True}
    return {**common, **own, **place, "moe": {**moe, **blocks.shared(1, moe["d_expert"]), **gates}}


def minimax_m2(s: Settings) -> dict[str, Any]:
    """MiniMaxM2ForCausalLM: sigmoid scores with a balancing bias; older files give the rotated part as `rotary_dim`."""
    s.only("scoring_func", "sigmoid")
    common = blocks.backbone(s, 5_000_000.0)
    rotated = s.count_or_none("rotary_dim")
    if rotated is not None:
        common["rotary_dim"] = None if rotated == common["head_dim"] else rotated
    moe = blocks.experts(s, "num_local_experts", "intermediate_size")
    gates = {"score": "sigmoid", "normalize_gates": True, "bias_update": blocks.BIAS_UPDATE}
    return {**common, "qk_norm": "full", "moe": {**moe, **gates}, "mtp_layers": _modules(s)}


def _modules(s: Settings) -> int | None:
    """Multi-token-prediction modules of one layer each, which the class leaves out."""
    if not s.flag("use_mtp"):
        return None
    s.only("mtp_transformer_layers", 1)
    return s.count_or_none("num_mtp_modules", 0) or None


def ernie(s: Settings) -> dict[str, Any]:
    """Ernie4_5_MoeForCausalLM: softmax scores with a balancing bias, interleaved rotary positions."""
    s.only("use_bias", False)
    n_layers, every = s.count("num_hidden_layers"), s.count("moe_layer_interval")
    last = n_layers - 1 if s.get("moe_layer_end_index") in (None, -1) else s.count("moe_layer_end_index", 0)
    first = s.count("moe_layer_start_index", 0)
    moe_layers = [i for i in range(n_layers) if (i + 1) % every == 0 and first <= i <= last]
    common = {**blocks.backbone(s, 500_000.0), "rope_interleaved": True}
    if not moe_layers:
        return {**common, "d_ff": s.count("intermediate_size")}
    key = next((k for k in ("moe_layer_end_index", "moe_layer_interval") if s.has(k)), "moe_layer_start_index")
    place = blocks.with_dense(s, layers.placement(s, key, moe_layers))
    moe = blocks.experts(s, "moe_num_experts", "moe_intermediate_size", "moe_k")
    more = blocks.shared(s.count("moe_num_shared_experts", 0), moe["d_expert"])
    gates = {"normalize_gates": True, "bias_update": blocks.BIAS_UPDATE}
    return {**common, **place, "moe": {**moe, **more, **gates}}
