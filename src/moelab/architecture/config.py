"""What a model is: validated, frozen, written as YAML. Everything else (counts, torch modules, exports) is derived."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.architecture.attention import (
    AttentionBias,
    AttentionTemperature,
    LayerKind,
    MLAConfig,
    RopeScaling,
    check_attention,
)
from moelab.architecture.buildable import unbuildable
from moelab.architecture.experts import MoEConfig
from moelab.config import Config, Count, CountOrZero, Positive
from moelab.errors import InputError
from moelab.quantities import parse_count

Activation = Literal["swiglu", "geglu", "clamped_swiglu", "relu", "gelu"]
"""`relu` and `gelu` have two matrices (up, down); the others have three (gate, up, down). `geglu` gates by the tanh
form of GELU; `clamped_swiglu` is gpt-oss's: (up + 1) gate sigmoid(1.702 gate), both clamped to `swiglu_limit`."""

GATED = ("swiglu", "geglu", "clamped_swiglu")
"""The activations with a gate projection."""


def _whole(value: Any) -> int | None:
    """A positive whole number written as a count may be; None for anything else, which its own field refuses."""
    try:
        number = parse_count(value) if isinstance(value, int | float | str) else 0
    except InputError:
        return None
    return number if number > 0 else None


class ModelConfig(Config):
    """A decoder-only language model: pre-norm RMSNorm, RoPE, grouped-query attention, dense or MoE feed-forward.

    With `moe`, the first `n_dense_layers` layers stay dense (width `d_ff`), and of the rest every `moe_every`-th
    is MoE. `n_kv_heads` defaults to `n_heads`, `head_dim` to `d_model / n_heads`.

    Options that are None are off and are left out of YAML and of hashes. `sliding_window` limits what layers see:
    all of them, or those that `sliding_pattern`, repeated over the layers, calls `window` or `chunk`; these may have
    key-value heads and a rotary base of their own. `rope_pattern`, repeated too, names layers without positions.
    `rotary_dim` rotates only the first dimensions of a head; `rope_interleaved` pairs neighbours instead of halves.
    `attention_bias: qkv` leaves out the bias of the output projection. `attention_gate` multiplies each head, or each
    element, of the output by a sigmoid of the input (arXiv 2505.06708). `norm: rms_plus_one` multiplies by 1 + weight
    (Gemma); `norm_position: both` also normalises what a block adds. `mtp_layers` predict further tokens while
    training (arXiv 2412.19437) and are off at inference: each is a layer of the last layer's kind behind a projection
    of twice the width, with three norms; embedding and head are the model's own.
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
    qk_norm: Literal["none", "head", "full", "l2"] = "head"
    tie_embeddings: bool = True
    rope_theta: Positive = 10_000.0
    norm_eps: Positive = 1e-6
    attention_bias: AttentionBias = False
    attention_sinks: bool = False
    mla: MLAConfig | None = None
    sliding_window: Count | None = None
    sliding_pattern: tuple[LayerKind, ...] | None = None
    sliding_n_kv_heads: Count | None = None
    sliding_rope_theta: Positive | None = None
    rope_pattern: tuple[Literal["rope", "none"], ...] | None = None
    rope_scaling: RopeScaling | None = None
    rope_interleaved: bool | None = None
    rotary_dim: Count | None = None
    attention_gate: Literal["head", "element"] | None = None
    attention_scale: Positive | None = Field(default=None, description="instead of 1 / sqrt(head_dim)")
    attention_softcap: Positive | None = None
    attention_temperature: AttentionTemperature | None = None
    clip_qkv: Positive | None = None
    norm: Literal["rms", "rms_plus_one", "layer"] | None = None
    norm_bias: bool | None = None
    norm_position: Literal["pre", "post", "both"] | None = None
    swiglu_limit: Positive | None = None
    embedding_scale: Positive | None = None
    logit_softcap: Positive | None = None
    head_bias: bool | None = None
    mtp_layers: Count | None = None

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
        check_attention(self)
        if self.norm_bias and self.norm != "layer":
            raise ValueError("norm_bias: needs norm: layer")
        if self.swiglu_limit and self.activation not in ("swiglu", "clamped_swiglu"):
            raise ValueError("swiglu_limit: needs the activation swiglu or clamped_swiglu")
        if self.moe is None and (self.n_dense_layers or self.moe_every != 1):
            raise ValueError("n_dense_layers, moe_every: only a model with `moe` has them")
        if self.moe is not None and self.n_moe_layers == 0:
            name = "n_dense_layers" if self.n_dense_layers >= self.n_layers else "moe_every"
            raise ValueError(f"{name}: leaves none of the {self.n_layers} layers for MoE, got {getattr(self, name)}")
        hashed = 0 if self.moe is None else self.moe.hash_layers or 0
        if hashed and hashed >= self.n_moe_layers:
            raise ValueError(
                f"moe.hash_layers: must be fewer than the MoE layers ({self.n_moe_layers}), got {hashed}; "
                "`router: hash` makes all of them so"
            )
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

    def moe_layers_before(self, layer: int) -> int:
        """How many MoE layers stand before layer number `layer` (from 0)."""
        return sum(self.is_moe_layer(earlier) for earlier in range(layer))

    def layer_kind(self, layer: int) -> LayerKind:
        """What layer number `layer` (from 0) sees: everything before it, a window or a chunk."""
        if self.sliding_window is None:
            return "full"
        pattern: tuple[LayerKind, ...] = self.sliding_pattern or ("window",)
        return pattern[layer % len(pattern)]

    def has_positions(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) rotates its queries and keys."""
        return self.rope_pattern is None or self.rope_pattern[layer % len(self.rope_pattern)] == "rope"

    def kv_heads(self, layer: int) -> int:
        """Key-value heads of layer number `layer` (from 0)."""
        local = self.layer_kind(layer) != "full"
        return self.sliding_n_kv_heads if local and self.sliding_n_kv_heads else self.n_kv_heads

    @property
    def unbuildable(self) -> str | None:
        """Why moelab can count but not build this model, or None where it can."""
        return unbuildable(self)
