"""What a model is: validated, frozen, written as YAML. Everything else (counts, torch modules, exports) is derived."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.architecture.experts import MoEConfig
from moelab.config import Config, Count, CountOrZero, Positive
from moelab.errors import InputError
from moelab.quantities import parse_count

Activation = Literal["swiglu", "relu", "gelu"]
"""`swiglu` has three matrices (gate, up, down); the plain ones have two (up, down)."""


def _whole(value: Any) -> int | None:
    """A positive whole number written as a count may be; None for anything else, which its own field refuses."""
    try:
        number = parse_count(value) if isinstance(value, int | float | str) else 0
    except InputError:
        return None
    return number if number > 0 else None


class MLAConfig(Config):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): counted here, not trainable by moelab."""

    q_lora_rank: Count
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    v_head_dim: Count


class ModelConfig(Config):
    """A decoder-only language model: pre-norm RMSNorm, RoPE, grouped-query attention, dense or MoE feed-forward.

    With `moe`, the first `n_dense_layers` layers stay dense (width `d_ff`), and of the rest every `moe_every`-th
    is MoE. `n_kv_heads` defaults to `n_heads`, `head_dim` to `d_model / n_heads`.
    """

    vocab_size: Count = Field(le=2**31)
    d_model: Count = Field(le=2**24)
    n_layers: Count = Field(le=2**16)
    n_heads: Count = Field(le=2**20)
    n_kv_heads: Count
    head_dim: Count
    d_ff: CountOrZero = Field(default=0, le=2**28)
    n_dense_layers: CountOrZero = 0
    moe_every: Count = 1
    moe: MoEConfig | None = None
    activation: Activation = "swiglu"
    qk_norm: Literal["none", "head", "full"] = "head"
    tie_embeddings: bool = True
    rope_theta: Positive = 10_000.0
    norm_eps: Positive = 1e-6
    attention_bias: bool = False
    attention_sinks: bool = False
    mla: MLAConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {**data}
        if isinstance(data.get("qk_norm"), bool):
            data["qk_norm"] = "head" if data["qk_norm"] else "none"
        heads, width = _whole(data.get("n_heads")), _whole(data.get("d_model"))
        # Where n_heads or d_model is missing or wrong, it is refused by its own name: what follows from it is not.
        if data.get("n_kv_heads") is None:
            data["n_kv_heads"] = heads or 1
        if data.get("head_dim") is None:
            if heads and width and width % heads:
                raise ValueError(
                    f"d_model: must be a multiple of n_heads ({heads}) unless head_dim is given, got {width}"
                )
            data["head_dim"] = width // heads if heads and width else 2
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads: must divide n_heads ({self.n_heads}), got {self.n_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim: must be even for rotary embeddings, got {self.head_dim}")
        if self.moe is None and (self.n_dense_layers or self.moe_every != 1):
            raise ValueError("n_dense_layers, moe_every: only a model with `moe` has them")
        if self.moe is not None and self.n_moe_layers == 0:
            name = "n_dense_layers" if self.n_dense_layers >= self.n_layers else "moe_every"
            raise ValueError(f"{name}: leaves none of the {self.n_layers} layers for MoE, got {getattr(self, name)}")
        if self.d_ff == 0 and self.n_moe_layers < self.n_layers:
            raise ValueError("d_ff: is required because some layers are dense")
        return self

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) has a MoE feed-forward."""
        if self.moe is None or layer < self.n_dense_layers:
            return False
        return (layer - self.n_dense_layers) % self.moe_every == self.moe_every - 1

    @property
    def n_moe_layers(self) -> int:
        """How many layers are MoE."""
        return sum(self.is_moe_layer(layer) for layer in range(self.n_layers))

    @property
    def unbuildable(self) -> str | None:
        """Why moelab can count but not build this model, or None where it can."""
        reasons = {
            "multi-head latent attention": self.mla is not None,
            "attention sinks": self.attention_sinks,
            "biased experts": self.moe is not None and self.moe.expert_bias,
            "a router bias": self.moe is not None and self.moe.router_bias,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)
