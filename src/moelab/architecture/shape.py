"""The numbers that counting needs, as plain integers for one model or as NumPy arrays for a whole lattice of them."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture.attention import AttentionBias
from moelab.architecture.config import GATED, Activation, ModelConfig
from moelab.architecture.experts import MoEConfig
from moelab.architecture.routing_choice import RoutingChoice, routing_fields

Integers = int | NDArray[np.int64]
"""An integer, or an array of them: the formulas read the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of one model (ints) or of many (int64 arrays that broadcast). Flags are 0 or 1. Dense: `n_moe_layers` 0.

    `n_window_layers` and `n_chunk_layers` of the layers see only `window` tokens, with `window_kv_heads` (0: as the
    others). `layer_norms` is the norms of one layer beside those of queries and keys; each has `norm_vectors` vectors.
    `hash_layers` of the MoE layers have no router. Multi-token-prediction layers are of the last layer's kind:
    `mtp_local` where that sees a window or a chunk, `mtp_dense` where it is a dense layer of a MoE model.
    """

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
    attention_output_bias: Integers = 0
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
    window: Integers = 0
    n_window_layers: Integers = 0
    n_chunk_layers: Integers = 0
    window_kv_heads: Integers = 0
    head_gate: Integers = 0
    element_gate: Integers = 0
    layer_norms: Integers = 2
    norm_vectors: Integers = 1
    head_bias: Integers = 0
    d_latent: Integers = 0
    hash_layers: Integers = 0
    mtp_layers: Integers = 0
    mtp_local: Integers = 0
    mtp_dense: Integers = 0

    @classmethod
    def of(cls, config: ModelConfig) -> "Shape":
        """The shape of one validated architecture."""
        moe, mla = config.moe, config.mla
        sizes = _layers_of(config)
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
                "d_latent": moe.d_latent or 0,
                "hash_layers": min(moe.hash_layers or 0, config.n_moe_layers),
                **moe.traits.sizes(moe),
            }
        if mla is not None:
            sizes |= {
                "mla_q_rank": mla.q_lora_rank or 0,
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
            attention_sinks=int(config.attention_sinks),
            head_gate=int(config.attention_gate == "head"),
            element_gate=int(config.attention_gate == "element"),
            layer_norms=4 if config.norm_position == "both" else 2,
            norm_vectors=2 if config.norm_bias else 1,
            head_bias=int(bool(config.head_bias)),
            **sizes,
            **_flags(config.activation, config.qk_norm, config.tie_embeddings, config.attention_bias),
        )

    @classmethod
    def of_widths(
        cls,
        d_model: Integers,
        n_layers: Integers,
        d_ff: Integers,
        *,
        vocab_size: int,
        head_dim: Integers,
        heads_per_kv: Integers = 1,
        activation: str = "swiglu",
        qk_norm: str = "head",
        tie_embeddings: bool = True,
        attention_bias: AttentionBias = False,
        n_dense_layers: Integers | None = None,
        **experts: Integers,
    ) -> "Shape":
        """Shapes from widths and depths that broadcast; `heads_per_kv` must divide d_model / head_dim.

        With `n_dense_layers` given, all further layers are MoE, with `experts`: n_experts, top_k, d_expert,
        n_shared_experts, d_shared. Where n_experts is 0 there are no MoE layers.
        """
        n_heads = d_model // head_dim
        if n_dense_layers is not None:
            experts["n_moe_layers"] = (experts["n_experts"] > 0) * (n_layers - n_dense_layers)
        return cls(
            vocab_size=vocab_size,
            d_model=d_model,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_heads // heads_per_kv,
            head_dim=head_dim,
            d_ff=d_ff,
            **experts,
            **_flags(activation, qk_norm, tie_embeddings, attention_bias),
        )

    def config(
        self,
        *,
        activation: Activation = "swiglu",
        normalize_gates: bool | None = None,
        routing: RoutingChoice = "softmax",
    ) -> ModelConfig:
        """The architecture of one row of `of_widths`, with token-choice routing of a ready kind (`routing_choice`).

        `normalize_gates` None: yes, except with top_k 1. Raises InputError where the sizes do not fit together.
        """
        moe, n_dense = None, 0
        if self.n_moe_layers:
            n_dense = int(self.n_layers - self.n_moe_layers)
            moe = MoEConfig(
                n_experts=int(self.n_experts),
                top_k=int(self.top_k),
                d_expert=int(self.d_expert),
                n_shared_experts=int(self.n_shared_experts),
                d_shared=int(self.d_shared),
                normalize_gates=bool(self.top_k > 1) if normalize_gates is None else normalize_gates,
                **routing_fields(routing),
            )
        return ModelConfig(
            vocab_size=int(self.vocab_size),
            d_model=int(self.d_model),
            n_layers=int(self.n_layers),
            n_heads=int(self.n_heads),
            n_kv_heads=int(self.n_kv_heads),
            head_dim=int(self.head_dim),
            d_ff=int(self.d_ff) if moe is None or n_dense else 0,
            n_dense_layers=n_dense,
            moe=moe,
            activation=activation,
            qk_norm="head" if self.qk_norm_head else "full" if self.qk_norm_full else "none",
            tie_embeddings=bool(self.tied),
            attention_bias=bool(self.attention_output_bias) or ("qkv" if self.attention_bias else False),
        )

    def take(self, index: Any) -> "Shape":
        """The rows `index` of a lattice (fields that are plain integers stay as they are)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Shape(**{name: value[index] if np.ndim(value) else value for name, value in values.items()})


def _flags(activation: str, qk_norm: str, tie_embeddings: bool, attention_bias: AttentionBias) -> dict[str, int]:
    """What the options of a backbone add to its parameters, as numbers."""
    return {
        "ffn_matrices": 3 if activation in GATED else 2,
        "tied": int(tie_embeddings),
        "qk_norm_head": int(qk_norm == "head"),
        "qk_norm_full": int(qk_norm == "full"),
        "attention_bias": int(bool(attention_bias)),
        "attention_output_bias": int(attention_bias is True),
    }


def _layers_of(config: ModelConfig) -> dict[str, int]:
    """How many layers see a window or a chunk, what those have of their own, and the further layers of prediction."""
    kinds = [config.layer_kind(layer) for layer in range(config.n_layers)]
    local = any(kind != "full" for kind in kinds)
    return {
        "window": config.sliding_window or 0 if local else 0,
        "n_window_layers": kinds.count("window"),
        "n_chunk_layers": kinds.count("chunk"),
        "window_kv_heads": config.sliding_n_kv_heads or 0 if local else 0,
        "mtp_layers": config.mtp_layers or 0,
        "mtp_local": int(kinds[-1] != "full"),
        "mtp_dense": int(config.moe is not None and not config.is_moe_layer(config.n_layers - 1)),
    }
