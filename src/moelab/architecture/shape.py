"""The numbers that counting needs, as plain integers for one model or as NumPy arrays for a whole lattice of them."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.config import ModelConfig
from moelab.architecture.experts import UNLEARNED, MoEConfig

Integers = int | NDArray[np.int64]
"""An integer, or an array of them: the formulas read the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of one model (ints) or of many (int64 arrays that broadcast). Flags are 0 or 1. Dense: `n_moe_layers` 0."""

    vocab_size: Integers
    d_model: Integers
    n_layers: Integers
    n_heads: Integers
    n_kv_heads: Integers
    head_dim: Integers
    d_ff: Integers = 0
    n_moe_layers: Integers = 0
    n_experts: Integers = 0
    top_k: Integers = 0
    d_expert: Integers = 0
    n_shared_experts: Integers = 0
    d_shared: Integers = 0
    ffn_matrices: Integers = 3
    tied: Integers = 1
    qk_norm_head: Integers = 1
    qk_norm_full: Integers = 0
    attention_bias: Integers = 0
    attention_sinks: Integers = 0
    router_bias: Integers = 0
    expert_bias: Integers = 0
    router_off: Integers = 0
    router_columns: Integers = 0
    router_scalars: Integers = 0
    mixing_columns: Integers = 0
    shared_gate: Integers = 0
    output_norm: Integers = 0
    mla_q_rank: Integers = 0
    mla_kv_rank: Integers = 0
    mla_nope_dim: Integers = 0
    mla_rope_dim: Integers = 0
    mla_v_dim: Integers = 0

    @classmethod
    def of(cls, config: ModelConfig) -> "Shape":
        """The shape of one validated architecture."""
        moe, mla = config.moe, config.mla
        sizes: dict[str, int] = {}
        if moe is not None:
            sizes |= {
                "n_moe_layers": config.n_moe_layers,
                "n_experts": moe.n_experts,
                "top_k": moe.top_k,
                "d_expert": moe.d_expert,
                "n_shared_experts": moe.n_shared_experts,
                "d_shared": moe.d_shared,
                "router_bias": int(moe.router_bias),
                "expert_bias": int(moe.expert_bias),
                "shared_gate": int(bool(moe.shared_gate)),
                "output_norm": int(bool(moe.output_norm)),
                **_router_sizes(moe),
            }
        if mla is not None:
            sizes |= {
                "mla_q_rank": mla.q_lora_rank,
                "mla_kv_rank": mla.kv_lora_rank,
                "mla_nope_dim": mla.qk_nope_head_dim,
                "mla_rope_dim": mla.qk_rope_head_dim,
                "mla_v_dim": mla.v_head_dim,
            }
        return cls(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            d_ff=config.d_ff,
            ffn_matrices=3 if config.activation == "swiglu" else 2,
            tied=int(config.tie_embeddings),
            qk_norm_head=int(config.qk_norm == "head"),
            qk_norm_full=int(config.qk_norm == "full"),
            attention_bias=int(config.attention_bias),
            attention_sinks=int(config.attention_sinks),
            **sizes,
        )

    def take(self, index: Any) -> "Shape":
        """The rows `index` of a lattice (fields that are plain integers stay as they are)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Shape(**{name: value[index] if np.ndim(value) else value for name, value in values.items()})


def _router_sizes(moe: MoEConfig) -> dict[str, int]:
    """What a router has beside, or instead of, its one column per expert.

    `router_off`: no such columns; `router_columns`: further ones; `mixing_columns`: weighted sums of tokens per token,
    both ways; `router_scalars`: learned temperatures.
    """
    mixtures = moe.n_experts * moe.slots
    if moe.router in UNLEARNED:
        return {"router_off": 1}
    if moe.router == "soft":
        return {"router_off": 1, "router_columns": mixtures, "mixing_columns": 2 * mixtures}
    if moe.router == "mixture_of_tokens":
        return {
            "router_off": int(moe.mixing == "uniform"),
            "router_columns": moe.n_experts if moe.separate_emit else 0,
            "router_scalars": 2 if moe.learned_temperature else 0,
            "mixing_columns": 2 * mixtures,
        }
    return {}
