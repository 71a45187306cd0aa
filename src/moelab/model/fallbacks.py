"""Which parts of a model no fused kernel computes: PyTorch's own functions do, at their speed."""

from moelab.architecture import ModelConfig
from moelab.architecture.buildable import options_of

_UNFUSED = {
    "mla": "the rotation of latent attention's heads",
    "sliding_window": "windows behind the first (in blocks of the window's size)",
    "rope_interleaved": "the rotation of interleaved pairs",
    "rotary_dim": "partial rotation",
    "attention_softcap": "capped attention scores (all scores of a layer or block at once)",
    "clip_qkv": "clipped queries and keys with their rotation",
    "qk_norm": "L2 norms of queries and keys with their rotation",
    "activation": "the activation",
    "swiglu_limit": "the clamped activation",
    "logit_softcap": "the loss behind capped logits",
    "head_bias": "the loss behind a biased head",
}
"""Options, and what neither the compiled kernels of the CPU nor those of CUDA compute of them."""
_SINKS = "attention sinks (all scores of a layer or block at once)"


def fallbacks(config: ModelConfig, kernels: str) -> str:
    """One sentence on what PyTorch computes instead of fused kernels (`native` or `torch`); empty where nothing is."""
    options = options_of(config)
    parts = [text for name, text in _UNFUSED.items() if name in options and not _covered(config, name)]
    if config.attention_sinks and kernels != "native":
        parts.append(_SINKS)
    if config.norm == "layer":
        parts.append("LayerNorm")
    return f"kernels: PyTorch computes what no fused kernel does: {', '.join(parts)}" if parts else ""


def _covered(config: ModelConfig, name: str) -> bool:
    """Chunks are whole sequences to the kernels; a rotation of all dimensions is no partial one."""
    if name == "sliding_window":
        return "window" not in {config.layer_kind(layer) for layer in range(config.n_layers)}
    return name == "rotary_dim" and config.rotary_dim == config.head_dim
