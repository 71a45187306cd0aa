"""Exact parameters and FLOPs by part, from a config or, vectorised, from a lattice of shapes.

The counts equal what moelab's torch modules hold (`numel`) and what PyTorch's FLOP counter sees on the reference path.
A matrix product of (m, k) and (k, n) is 2 m k n FLOPs; the embedding look-up, norms, activations and gate weights
are free; the backward pass costs twice the forward.
"""

from dataclasses import dataclass
from typing import Any

from moelab.architecture.config import ModelConfig
from moelab.architecture.shape import Shape
from moelab.notebook import Shown, html_table, short_repr

Numbers = Any
"""An int or float for one model, a NumPy array for a lattice."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ParameterCount(Shown):
    """Parameters by part. `experts` are the routed ones, `active_experts` those of them that one token uses."""

    embedding: Numbers
    head: Numbers
    attention: Numbers
    dense_ffn: Numbers
    experts: Numbers
    active_experts: Numbers
    shared_experts: Numbers
    router: Numbers
    norm: Numbers

    @property
    def params_total(self) -> Numbers:
        """All parameters; tied embeddings count once."""
        return self.params_non_embedding + self.params_embedding

    @property
    def params_embedding(self) -> Numbers:
        """Input embedding and, where it is not tied, the output head."""
        return self.embedding + self.head

    @property
    def params_non_embedding(self) -> Numbers:
        """Everything but input embedding and output head."""
        return self.attention + self.dense_ffn + self.experts + self.shared_experts + self.router + self.norm

    @property
    def params_active(self) -> Numbers:
        """Parameters one token uses, embeddings included once."""
        return self.params_total - self.experts + self.active_experts

    @property
    def params_active_non_embedding(self) -> Numbers:
        """Parameters one token uses, without input embedding and output head."""
        return self.params_non_embedding - self.experts + self.active_experts

    @property
    def activation_rate(self) -> Numbers:
        """r_a = active over total, both without embeddings (Li et al., arXiv 2506.12119)."""
        return self.params_active_non_embedding / self.params_non_embedding

    @property
    def parts(self) -> dict[str, Numbers]:
        """The summands of `params_total`."""
        return {
            "embedding": self.embedding,
            "head": self.head,
            "attention": self.attention,
            "dense_ffn": self.dense_ffn,
            "experts": self.experts,
            "shared_experts": self.shared_experts,
            "router": self.router,
            "norm": self.norm,
        }

    def __repr__(self) -> str:
        sums = ("params_total", "params_active", "params_non_embedding", "params_active_non_embedding")
        return short_repr(self, **{name: getattr(self, name) for name in sums}, activation_rate=self.activation_rate)

    def _repr_html_(self) -> str:
        sums = [("total", self.params_total), ("active", self.params_active)]
        return html_table(["parameters", ""], [*self.parts.items(), *sums])


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class FlopCount(Shown):
    """Forward FLOPs per token by part, at one sequence length."""

    attention_projections: Numbers
    attention_scores: Numbers
    dense_ffn: Numbers
    experts: Numbers
    shared_experts: Numbers
    router: Numbers
    head: Numbers

    @property
    def parts(self) -> dict[str, Numbers]:
        """The summands of `forward`."""
        return {
            "attention_projections": self.attention_projections,
            "attention_scores": self.attention_scores,
            "dense_ffn": self.dense_ffn,
            "experts": self.experts,
            "shared_experts": self.shared_experts,
            "router": self.router,
            "head": self.head,
        }

    @property
    def forward(self) -> Numbers:
        """Forward FLOPs per token."""
        return sum(self.parts.values())

    @property
    def train(self) -> Numbers:
        """Training FLOPs per token: forward plus a backward that costs twice as much."""
        return 3 * self.forward

    def __repr__(self) -> str:
        return short_repr(self, forward=self.forward, train=self.train)

    def _repr_html_(self) -> str:
        sums = [("forward", self.forward), ("training", self.train)]
        return html_table(["forward FLOPs per token", ""], [*self.parts.items(), *sums])


def count_parameters(model: ModelConfig | Shape) -> ParameterCount:
    """Exact parameters by part."""
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    d, m, dense_layers = s.d_model, s.ffn_matrices, s.n_layers - s.n_moe_layers
    one_expert = m * d * s.d_expert + s.expert_bias * ((m - 1) * s.d_expert + d)
    return ParameterCount(
        embedding=s.vocab_size * d,
        head=s.vocab_size * d * (1 - s.tied),
        attention=s.n_layers * _attention_parameters(s),
        dense_ffn=dense_layers * m * d * s.d_ff,
        experts=s.n_moe_layers * s.n_experts * one_expert,
        active_experts=s.n_moe_layers * s.top_k * one_expert,
        shared_experts=s.n_moe_layers * d * (m * s.d_shared + s.shared_gate),
        router=s.n_moe_layers * (_router_columns(s) * d + s.n_experts * s.router_bias + s.router_scalars),
        norm=s.n_layers * (2 * d + _attention_norm_parameters(s)) + d + s.n_moe_layers * s.output_norm * 2 * d,
    )


def count_flops(model: ModelConfig | Shape, seq_len: Numbers, *, causal: bool = False) -> FlopCount:
    """Exact forward FLOPs per token at a context of `seq_len` tokens.

    Attention scores are counted as the full square (what is computed without a causal kernel); with `causal`
    only the lower triangle, (seq_len + 1) / 2 keys per query, is.
    """
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    d, m, dense_layers = s.d_model, s.ffn_matrices, s.n_layers - s.n_moe_layers
    keys = (seq_len + 1) / 2 if causal else seq_len
    return FlopCount(
        attention_projections=2 * s.n_layers * _attention_matrices(s),
        attention_scores=2 * s.n_layers * keys * s.n_heads * (_qk_dim(s) + _v_dim(s)),
        dense_ffn=2 * dense_layers * m * d * s.d_ff,
        experts=2 * s.n_moe_layers * s.top_k * m * d * s.d_expert,
        shared_experts=2 * s.n_moe_layers * d * (m * s.d_shared + s.shared_gate),
        router=2 * s.n_moe_layers * d * (_router_columns(s) + s.mixing_columns),
        head=2 * s.vocab_size * d,
    )


def _router_columns(s: Shape) -> Numbers:
    """Columns of the matrices that score a token; their products are all a choosing router costs."""
    return s.n_experts * (1 - s.router_off) + s.router_columns


def _uses_mla(s: Shape) -> Numbers:
    return s.mla_kv_rank > 0


def _qk_dim(s: Shape) -> Numbers:
    mla = _uses_mla(s)
    return mla * (s.mla_nope_dim + s.mla_rope_dim) + (1 - mla) * s.head_dim


def _v_dim(s: Shape) -> Numbers:
    mla = _uses_mla(s)
    return mla * s.mla_v_dim + (1 - mla) * s.head_dim


def _attention_matrices(s: Shape) -> Numbers:
    """Elements of one layer's projection matrices."""
    mla = _uses_mla(s)
    grouped = 2 * s.d_model * s.head_dim * (s.n_heads + s.n_kv_heads)
    latent = (
        s.d_model * s.mla_q_rank
        + (s.mla_q_rank + (s.mla_q_rank == 0) * s.d_model) * s.n_heads * (s.mla_nope_dim + s.mla_rope_dim)
        + s.d_model * (s.mla_kv_rank + s.mla_rope_dim)
        + s.mla_kv_rank * s.n_heads * (s.mla_nope_dim + s.mla_v_dim)
        + s.n_heads * s.mla_v_dim * s.d_model
    )
    return mla * latent + (1 - mla) * grouped


def _attention_parameters(s: Shape) -> Numbers:
    biases = s.attention_bias * (s.n_heads + 2 * s.n_kv_heads) * s.head_dim + s.attention_output_bias * s.d_model
    return _attention_matrices(s) + biases + s.attention_sinks * s.n_heads


def _attention_norm_parameters(s: Shape) -> Numbers:
    """QK-norm weights of one layer, or the norms of the latent vectors."""
    mla = _uses_mla(s)
    qk_norm = s.qk_norm_head * 2 * s.head_dim + s.qk_norm_full * s.head_dim * (s.n_heads + s.n_kv_heads)
    return mla * (s.mla_q_rank + s.mla_kv_rank) + (1 - mla) * qk_norm
