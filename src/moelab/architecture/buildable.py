"""What moelab counts but does not train: the options that no module of `moelab.model` computes yet."""

from typing import Any

COUNTED_ONLY = {
    "mla": "multi-head latent attention",
    "attention_sinks": "attention sinks",
    "sliding_window": "layers that see a window or a chunk",
    "rope_pattern": "layers without positions",
    "rope_scaling": "scaled rotary frequencies",
    "rope_interleaved": "interleaved rotary pairs",
    "rotary_dim": "partial rotary positions",
    "attention_gate": "a gate on the attention output",
    "attention_scale": "a scale of attention scores of its own",
    "attention_softcap": "capped attention scores",
    "attention_temperature": "attention temperature",
    "clip_qkv": "clipped queries, keys and values",
    "norm": "norms other than RMSNorm",
    "norm_position": "norms after the blocks",
    "swiglu_limit": "a clamped activation",
    "embedding_scale": "scaled embeddings",
    "logit_softcap": "capped logits",
    "head_bias": "a bias of the output head",
    "mtp_layers": "multi-token prediction",
}
"""Fields of a model that are counted only, with the words for them."""

COUNTED_ONLY_MOE = {
    "expert_bias": "biased experts",
    "router_bias": "a router bias",
    "d_latent": "experts in a latent space",
    "n_group": "group-limited routing",
    "hash_layers": "hash routing in the first layers",
    "capacity_drop": "dropping by score",
    "input_gates": "gates on the experts' input",
}
"""Fields of a MoE layer that are counted only."""


def unbuildable(config: Any) -> str | None:
    """Why moelab can count but not build this `ModelConfig`, or None where it can."""
    if config.activation in ("geglu", "clamped_swiglu"):
        return f"the activation {config.activation}"
    if config.qk_norm == "l2":
        return "L2 norms of queries and keys"
    if config.rope_scaling is not None and config.rope_scaling.kind == "longrope":
        return "rotary frequencies scaled by longrope"
    if config.moe is not None and config.moe.score == "sparsemixer":
        return "SparseMixer's gates"
    reasons = [reason for name, reason in COUNTED_ONLY.items() if getattr(config, name)]
    if config.moe is not None:
        reasons += [reason for name, reason in COUNTED_ONLY_MOE.items() if getattr(config.moe, name)]
    return reasons[0] if reasons else None
