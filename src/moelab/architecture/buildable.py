"""The options of today's models by name, and what moelab counts but does not build."""

from typing import Any

OPTIONS = {
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
"""Fields of a model beyond grouped-query attention with whole rotary positions and RMSNorms before the blocks."""


def unbuildable(config: Any) -> str | None:
    """Why moelab can count but not build this `ModelConfig`, or None where it can."""
    moe, scaling = config.moe, config.rope_scaling
    if scaling is not None and scaling.kind == "longrope":
        return "rotary frequencies scaled by longrope"
    if moe is not None and moe.score == "sparsemixer":
        return "SparseMixer's gates"
    if moe is not None and moe.router_bias and moe.router != "token_choice":
        return f"a router bias of the router {moe.router}"
    return None


def options_of(config: Any) -> dict[str, str]:
    """The options of today's models that this `ModelConfig` sets, by field, with the words for them.

    Kernels and exports written for the plain model ask for them: what they do not name, they do not compute.
    """
    found = {name: words for name, words in OPTIONS.items() if _set(config, name)}
    if config.activation in ("geglu", "clamped_swiglu"):
        found["activation"] = f"the activation {config.activation}"
    if config.qk_norm == "l2":
        found["qk_norm"] = "L2 norms of queries and keys"
    return found


def _set(config: Any, name: str) -> bool:
    """Whether the option is on: `norm: rms` and `norm_position: pre` are the plain model's."""
    return getattr(config, name) not in (None, False, "rms", "pre")
