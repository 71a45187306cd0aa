"""The designs of a lattice as laws read them: what the lattice has counted once is not counted again."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import Shape
from moelab.laws.design import Design
from moelab.planning.lattice import Lattice

Array = NDArray[Any]


class CountedDesign(Design):
    """A `Design` of a lattice's n designs, trained on tokens that broadcast against them.

    `tokens` and `unique_tokens` are those that count for the loss (`credit.py`), `trained` all that the design trains
    on. Every property equals that of `Design.of(lattice.shape, ...)`, which serves as its reference in the tests.
    """

    lattice: Lattice
    trained: Array

    def __init__(self, lattice: Lattice, tokens: Array, unique_tokens: Array | None = None) -> None:
        trained = np.asarray(tokens, float)
        tokens = trained * lattice.token_credit
        unique = tokens if unique_tokens is None else np.minimum(np.asarray(unique_tokens, float), tokens)
        # The fields of a frozen dataclass are set once, here.
        vars(self).update(
            lattice=lattice, tokens=tokens, seq_len=lattice.space.seq_len, unique_tokens=unique, d_ff_reference=None,
            trained=trained,
        )  # fmt: skip

    @property
    def shape(self) -> Shape:
        """The shapes, built where a law asks for them."""
        return self.lattice.shape

    @cached_property
    def dense(self) -> Array:
        """Where no layer is MoE."""
        return ~self.lattice.is_moe

    @cached_property
    def params_total(self) -> Array:
        """All parameters, tied embeddings once."""
        return self.lattice.params_total

    @cached_property
    def params_active(self) -> Array:
        """Parameters one token uses, embeddings included."""
        return self.lattice.params_active

    @cached_property
    def params_without_router(self) -> Array:
        """Non-embedding parameters without routers."""
        return self.lattice.params_non_embedding - self.lattice.params_router

    @cached_property
    def params_active_without_router(self) -> Array:
        """Non-embedding parameters one token uses, without routers."""
        return self.lattice.params_active_non_embedding - self.lattice.params_router

    @cached_property
    def params_dense(self) -> Array:
        """The dense model of the same depth and width, without embeddings: each MoE layer keeps one routed expert."""
        return self.params_without_router - self.lattice.params_experts * (1 - 1 / self.n_experts)

    @cached_property
    def n_experts(self) -> Array:
        """Routed experts in a MoE layer; 1 where dense."""
        return self.lattice.of_experts("n_experts")

    @cached_property
    def top_k(self) -> Array:
        """Routed experts that one token uses; 1 where dense."""
        return self.lattice.of_experts("top_k")

    @cached_property
    def sparsity(self) -> Array:
        """S = 1 - K/E."""
        return self.lattice.of_experts("sparsity")

    @cached_property
    def n_shared(self) -> Array:
        """Shared experts in units of one routed expert's width."""
        return self._by_option("n_shared")

    @cached_property
    def granularity(self) -> Array:
        """G = (top_k d_expert + d_shared) / d_expert; 1 where dense."""
        return self._by_option("granularity")

    @cached_property
    def expansion(self) -> Array:
        """X = n_experts d_expert / (top_k d_expert + d_shared); 1 where dense."""
        return self._by_option("expansion")

    @cached_property
    def expert_ratio(self) -> Array:
        """A MoE layer's feed-forward width over the width in use."""
        return self._by_option("expert_ratio")

    @cached_property
    def width_ratio(self) -> Array:
        """Feed-forward width of all layers over the width in use."""
        return self.lattice.width_ratio

    @cached_property
    def train_flops(self) -> Array:
        """Exact training FLOPs: attention scores (full square), router and head included."""
        return self.lattice.flops_train * self.trained

    @cached_property
    def train_flops_without_head(self) -> Array:
        """Exact training FLOPs without the output head."""
        return np.asarray(3.0 * (self.lattice.flops_forward - self.lattice.flops_head) * self.trained)

    @cached_property
    def all_moe(self) -> Array:
        """Where every layer is MoE."""
        return self.lattice.of_experts("all_moe") > 0

    def _by_option(self, name: str) -> Array:
        """A ratio of widths: of the experts' row alone, unless shared experts have a width of their own."""
        if self.lattice.table.shared_width:
            return np.asarray(getattr(Design, name).func(self))
        return self.lattice.of_experts(name)
