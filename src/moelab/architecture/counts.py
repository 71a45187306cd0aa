"""Exact parameters and FLOPs by part, from a config or, vectorised, from a lattice of shapes.

The counts equal what moelab's torch modules hold (`numel`) and what PyTorch's FLOP counter sees on the reference path.
A matrix product of (m, k) and (k, n) is 2 m k n FLOPs; the embedding look-up, norms, activations and gate weights
are free; the backward pass costs twice the forward. Multi-token-prediction layers stand beside the totals, as in
published totals and in transformers' classes: training computes and holds them, inference does not.
"""

from dataclasses import dataclass

from moelab.architecture.config import ModelConfig
from moelab.architecture.layers import (
    Numbers,
    all_keys,
    attention_matrices,
    attention_parameters,
    dense_parameters,
    expert_matrices,
    expert_parameters,
    latent_parameters,
    mtp_keys,
    mtp_kv_heads,
    norm_parameters,
    over_layers,
    router_columns,
    router_parameters,
    score_width,
    select,
    shared_parameters,
)
from moelab.architecture.shape import Shape
from moelab.notebook import Shown, html_table, short_repr

CONVENTIONS = {False: "full square", True: "causal half"}
"""What is counted of attention scores, by `causal`: every FLOP figure that is printed has one of them beside it."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ParameterCount(Shown):
    """Parameters by part. `experts` are the routed ones, `active_experts` those of them that one token uses, `latent`
    the projections into and out of their latent space. `mtp` are the multi-token-prediction layers: trained, but in
    none of the sums."""

    embedding: Numbers
    head: Numbers
    attention: Numbers
    dense_ffn: Numbers
    experts: Numbers
    active_experts: Numbers
    shared_experts: Numbers
    router: Numbers
    norm: Numbers
    latent: Numbers = 0
    mtp: Numbers = 0

    @property
    def params_total(self) -> Numbers:
        """All parameters but multi-token prediction; tied embeddings count once."""
        return self.params_non_embedding + self.params_embedding

    @property
    def params_trained(self) -> Numbers:
        """All parameters that training holds: the total and the multi-token-prediction layers."""
        return self.params_total + self.mtp

    @property
    def params_embedding(self) -> Numbers:
        """Input embedding and, where it is not tied, the output head."""
        return self.embedding + self.head

    @property
    def params_non_embedding(self) -> Numbers:
        """Everything but input embedding and output head."""
        moe = self.experts + self.latent + self.shared_experts + self.router
        return self.attention + self.dense_ffn + moe + self.norm

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
            "latent": self.latent,
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
    """Forward FLOPs per token by part, at one sequence length. `mtp` is the forward pass of the multi-token-prediction
    layers, which only `train` includes."""

    attention_projections: Numbers
    attention_scores: Numbers
    dense_ffn: Numbers
    experts: Numbers
    shared_experts: Numbers
    router: Numbers
    head: Numbers
    latent: Numbers = 0
    mtp: Numbers = 0

    @property
    def parts(self) -> dict[str, Numbers]:
        """The summands of `forward`."""
        return {
            "attention_projections": self.attention_projections,
            "attention_scores": self.attention_scores,
            "dense_ffn": self.dense_ffn,
            "experts": self.experts,
            "latent": self.latent,
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
        """Training FLOPs per token: forward, with multi-token prediction, plus a backward that costs twice as much."""
        return 3 * (self.forward + self.mtp)

    def __repr__(self) -> str:
        return short_repr(self, forward=self.forward, train=self.train)

    def _repr_html_(self) -> str:
        sums = [("forward", self.forward), ("training", self.train)]
        return html_table(["forward FLOPs per token", ""], [*self.parts.items(), *sums])


def count_parameters(model: ModelConfig | Shape) -> ParameterCount:
    """Exact parameters by part."""
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    one_expert, final_norm = expert_parameters(s), s.norm_vectors * s.d_model
    return ParameterCount(
        embedding=s.vocab_size * s.d_model,
        head=s.vocab_size * (s.d_model * (1 - s.tied) + s.head_bias),
        attention=over_layers(s, lambda kv_heads: attention_parameters(s, kv_heads)),
        dense_ffn=(s.n_layers - s.n_moe_layers) * dense_parameters(s),
        experts=s.n_moe_layers * s.n_experts * one_expert,
        active_experts=s.n_moe_layers * s.top_k * one_expert,
        latent=s.n_moe_layers * latent_parameters(s),
        shared_experts=s.n_moe_layers * shared_parameters(s),
        router=(s.n_moe_layers - s.hash_layers) * router_parameters(s),
        norm=over_layers(s, lambda kv_heads: norm_parameters(s, kv_heads))
        + final_norm
        + s.n_moe_layers * s.output_norm * 2 * s.d_model,
        mtp=select(s.mtp_layers, lambda: s.mtp_layers * _mtp_parameters(s), lambda: 0),
    )


def count_flops(
    model: ModelConfig | Shape, seq_len: Numbers, *, causal: bool = False, decode: bool = False
) -> FlopCount:
    """Exact forward FLOPs per token at a context of `seq_len` tokens.

    Attention scores are counted as the full square (what is computed without a causal kernel); with `causal`
    only the lower triangle, (seq_len + 1) / 2 keys per query, is. Layers with a window or a chunk score what that
    holds. `decode`: of one token generated at that context; latent attention then works in its absorbed form.
    """
    s = Shape.of(model) if isinstance(model, ModelConfig) else model
    scored = router_columns(s) * (s.n_moe_layers - s.hash_layers) + s.mixing_columns * s.n_moe_layers
    return FlopCount(
        attention_projections=2 * over_layers(s, lambda kv_heads: attention_matrices(s, kv_heads)),
        attention_scores=2 * all_keys(s, seq_len, causal) * s.n_heads * score_width(s, decode),
        dense_ffn=2 * (s.n_layers - s.n_moe_layers) * dense_parameters(s),
        experts=2 * s.n_moe_layers * s.top_k * expert_matrices(s),
        latent=2 * s.n_moe_layers * latent_parameters(s),
        shared_experts=2 * s.n_moe_layers * shared_parameters(s),
        router=2 * s.d_model * scored,
        head=2 * s.vocab_size * s.d_model,
        mtp=select(s.mtp_layers, lambda: s.mtp_layers * _mtp_flops(s, seq_len, causal), lambda: 0),
    )


def _mtp_has_experts(s: Shape) -> Numbers:
    return (s.n_moe_layers > 0) * (1 - s.mtp_dense)


def _mtp_parameters(s: Shape) -> Numbers:
    """One multi-token-prediction module (arXiv 2412.19437, section 2.2): a projection of twice the width, three norms
    and a layer of the last one's kind; embedding and head are the model's own."""

    def experts() -> Numbers:
        routed = s.n_experts * expert_parameters(s) + router_parameters(s)
        return routed + latent_parameters(s) + shared_parameters(s) + s.output_norm * 2 * s.d_model

    kv_heads = mtp_kv_heads(s)
    layer = attention_parameters(s, kv_heads) + norm_parameters(s, kv_heads)
    layer = layer + select(_mtp_has_experts(s), experts, lambda: dense_parameters(s))
    return 2 * s.d_model * s.d_model + 3 * s.norm_vectors * s.d_model + layer


def _mtp_flops(s: Shape, seq_len: Numbers, causal: bool) -> Numbers:
    """Forward FLOPs per token of one multi-token-prediction module, its use of the head included."""

    def experts() -> Numbers:
        routed = s.top_k * expert_matrices(s) + s.d_model * (router_columns(s) + s.mixing_columns)
        return routed + latent_parameters(s) + shared_parameters(s)

    scores = mtp_keys(s, seq_len, causal) * s.n_heads * score_width(s)
    layer = attention_matrices(s, mtp_kv_heads(s)) + scores
    layer = layer + select(_mtp_has_experts(s), experts, lambda: dense_parameters(s))
    return 2 * (2 * s.d_model * s.d_model + layer + s.vocab_size * s.d_model)
