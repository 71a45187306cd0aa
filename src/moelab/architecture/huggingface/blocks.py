"""What most classes of transformers share in config.json: the backbone, and experts with DeepSeek-V3's router."""

from typing import Any

from moelab.architecture.huggingface.rotary import rotary
from moelab.architecture.huggingface.settings import Settings

ACTIVATIONS = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu"}
"""Activations of the gate, by their names in config.json."""

BIAS_UPDATE = 0.001
"""The step of the bias that balances experts, which no config.json has: DeepSeek-V3's (arXiv 2412.19437, 4.2)."""

ROPE_THETA = 10_000.0
"""The base of most classes."""

BACKBONE = {
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_parameters": None,
}
"""Defaults that most classes share."""


def heads(s: Settings) -> dict[str, int]:
    """Width and heads; a missing `head_dim` is `hidden_size / num_attention_heads`, rounded down as in the classes."""
    width, n_heads = s.count("hidden_size"), s.count("num_attention_heads")
    return {
        "d_model": width,
        "n_heads": n_heads,
        "n_kv_heads": s.count_or_none("num_key_value_heads") or n_heads,
        "head_dim": s.count_or_none("head_dim") or width // n_heads,
    }


def sizes(s: Settings, activation: str = "hidden_act") -> dict[str, Any]:
    """The backbone without its positions. `activation` is the class's key for that."""
    return {
        "vocab_size": s.count("vocab_size"),
        "n_layers": s.count("num_hidden_layers"),
        **heads(s),
        "activation": s.choice(activation, ACTIVATIONS),
        "norm_eps": s.number("rms_norm_eps"),
        "tie_embeddings": s.flag("tie_word_embeddings"),
        "qk_norm": "none",
    }


def backbone(s: Settings, theta: float = ROPE_THETA) -> dict[str, Any]:
    """The whole backbone, with one base of rotary positions for all layers."""
    common = sizes(s)
    return {**common, **rotary(s, common["head_dim"], theta)}


def dense(s: Settings, theta: float = ROPE_THETA) -> dict[str, Any]:
    """A dense model's backbone."""
    return {**backbone(s, theta), "d_ff": s.count("intermediate_size")}


def experts(s: Settings, n_experts: str, d_expert: str, top_k: str = "num_experts_per_tok") -> dict[str, Any]:
    """Numbers and width of the experts, under the class's names."""
    return {
        "n_experts": s.count(s.first(n_experts, "num_local_experts", "num_experts", "n_routed_experts")),
        "top_k": s.count(top_k),
        "d_expert": s.count(d_expert),
    }


def shared(n_shared: int, width: int) -> dict[str, int]:
    """Shared experts, each of this width."""
    return {"n_shared_experts": n_shared, "d_shared": n_shared * width} if n_shared else {}


def groups(s: Settings, score: str) -> dict[str, Any]:
    """Groups of experts, where there is more than one."""
    if (s.count_or_none("n_group") or 1) == 1:
        return {}
    return {"n_group": s.count("n_group"), "topk_group": s.count("topk_group"), "group_score": score}


def with_dense(s: Settings, place: dict[str, int], width: str = "intermediate_size") -> dict[str, Any]:
    """Where the MoE layers are, with the width of the dense ones where there are any."""
    dense_layers = place["n_dense_layers"] > 0 or place["moe_every"] > 1
    return {**place, "d_ff": s.count(width)} if dense_layers else place
