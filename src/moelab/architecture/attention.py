"""What attention can be in a config: kinds of layers, latent attention, rotary scaling; and their checks."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.config import Config, Count, Positive

LayerKind = Literal["full", "window", "chunk"]
"""What a layer's queries see: all earlier tokens; the last `sliding_window` tokens, themselves included; or the
tokens of their own chunk of `sliding_window` (Llama 4)."""

AttentionBias = bool | Literal["qkv"]
"""Biases on all four projections, or on queries, keys and values alone."""


class MLAConfig(Config):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434). `q_lora_rank` None: queries without a latent."""

    q_lora_rank: Count | None = None
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    v_head_dim: Count


class RopeScaling(Config):
    """Rotary frequencies stretched to longer contexts; `original_context` is the length that training began with.

    `linear` divides positions by `factor`; `llama3` stretches low frequencies alone, between `low_freq_factor` and
    `high_freq_factor`; `yarn` (arXiv 2309.00071) blends by `beta_fast` and `beta_slow`, and scales the tables by
    `attention_factor`, or by what `mscale` and `mscale_all_dim` give as in DeepSeek's models. `longrope`
    (arXiv 2402.13753) divides each frequency by a factor of its own, up to the original context and beyond it, and is
    counted only. Layers with a `sliding_rope_theta` of their own are not scaled.
    """

    kind: Literal["linear", "llama3", "yarn", "longrope"]
    factor: Positive
    original_context: Count | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    attention_factor: Positive | None = None
    mscale: Positive | None = None
    mscale_all_dim: Positive | None = None
    truncate: bool | None = None
    short_factors: tuple[Positive, ...] | None = None
    long_factors: tuple[Positive, ...] | None = None
    short_mscale: Positive | None = None
    long_mscale: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed: dict[str, tuple[str, ...]] = {"linear": (), "yarn": ("original_context",)}
        needed["longrope"] = ("original_context", "short_factors", "long_factors")
        needed["llama3"] = ("original_context", "low_freq_factor", "high_freq_factor")
        for name in needed[self.kind]:
            if getattr(self, name) is None:
                raise ValueError(f"{name}: {self.kind} scaling needs it")
        if self.kind == "llama3" and (self.high_freq_factor or 0) < (self.low_freq_factor or 0):
            raise ValueError(f"high_freq_factor: must be at least low_freq_factor ({self.low_freq_factor})")
        return self


class AttentionTemperature(Config):
    """Queries of layers without positions grow with theirs: 1 + scale ln(1 + floor(position / floor)) (Llama 4)."""

    scale: Positive = Field(default=0.1)
    floor: Count = Field(default=8192)


def check_attention(config: Any) -> None:
    """Raise ValueError naming the field where the options of attention of a `ModelConfig` do not fit together."""
    _check_heads(config)
    _check_layers(config)
    if config.mla is not None:
        for name in ("rotary_dim", "sliding_n_kv_heads", "attention_gate", "clip_qkv"):
            if getattr(config, name):
                raise ValueError(f"{name}: latent attention (mla) has no such option")


def _check_heads(config: Any) -> None:
    if config.n_heads % config.n_kv_heads:
        raise ValueError(f"n_kv_heads: must divide n_heads ({config.n_heads}), got {config.n_kv_heads}")
    if config.sliding_n_kv_heads and config.n_heads % config.sliding_n_kv_heads:
        raise ValueError(f"sliding_n_kv_heads: must divide n_heads ({config.n_heads}), got {config.sliding_n_kv_heads}")
    if config.head_dim % 2:
        raise ValueError(f"head_dim: must be even for rotary embeddings, got {config.head_dim}")
    if config.rotary_dim and (config.rotary_dim % 2 or config.rotary_dim > config.head_dim):
        raise ValueError(f"rotary_dim: must be even and at most head_dim ({config.head_dim}), got {config.rotary_dim}")


def _check_layers(config: Any) -> None:
    local = [kind for kind in config.sliding_pattern or () if kind != "full"]
    if config.sliding_pattern is not None and not config.sliding_pattern:
        raise ValueError("sliding_pattern: must name at least one layer: window, chunk or full")
    if local and config.sliding_window is None:
        raise ValueError(f"sliding_window: sliding_pattern has `{local[0]}` layers, which need a size")
    if config.sliding_window and config.sliding_pattern is not None and not local:
        raise ValueError("sliding_pattern: sliding_window needs at least one `window` or `chunk` layer")
    for name in ("sliding_n_kv_heads", "sliding_rope_theta"):
        if getattr(config, name) and config.sliding_window is None:
            raise ValueError(f"{name}: needs sliding_window")
    if config.rope_pattern is not None and not config.rope_pattern:
        raise ValueError("rope_pattern: must name at least one layer: rope or none")
    if config.attention_temperature and "none" not in (config.rope_pattern or ()):
        raise ValueError("attention_temperature: acts in layers without positions; rope_pattern names none")
