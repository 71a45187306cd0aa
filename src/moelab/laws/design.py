"""The convention converter's raw material: everything a law may ask of an architecture, vectorised over a lattice."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, ParameterCount, Shape, count_flops, count_parameters
from moelab.notebook import Shown

Array = NDArray[Any]
IN_TABLES = (
    "params_non_embedding", "params_active_non_embedding", "params_dense", "train_flops", "expert_ratio", "sparsity",
)  # fmt: skip
"""Variables that a paper counts otherwise than the columns of a table do."""


@dataclass(frozen=True, repr=False)
class Refusal(Shown):
    """Why a law does not apply, and to which designs. `published_only`: a limit of the published coefficients."""

    reason: str
    where: Array
    published_only: bool = False


@dataclass(frozen=True, repr=False)
class Conversion(Shown):
    """Designs in one law's convention. `reason[i]` is 0 where covered, else 1 + the index into `reasons`."""

    variables: dict[str, Array]
    covered: Array
    reason: Array
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, variables: dict[str, Array], refusals: list[Refusal]) -> "Conversion":
        """Broadcast everything to one shape; the first refusal that applies gives the reason."""
        arrays = np.broadcast_arrays(*variables.values())
        shape = arrays[0].shape
        reason = np.zeros(shape, np.int8)
        for index in range(len(refusals), 0, -1):
            reason = np.where(np.broadcast_to(refusals[index - 1].where, shape), np.int8(index), reason)
        reasons = tuple(refusal.reason for refusal in refusals)
        return cls(dict(zip(variables, arrays, strict=True)), reason == 0, reason, reasons)

    def take(self, index: Any) -> "Conversion":
        """The designs `index` (a slice or positions)."""
        variables = {name: column[index] for name, column in self.variables.items()}
        return Conversion(variables, self.covered[index], self.reason[index], self.reasons)

    def why(self, index: Any = ()) -> str | None:
        """Why design `index` is not covered, or None where it is."""
        code = int(self.reason[index])
        return self.reasons[code - 1] if code else None


@dataclass(frozen=True, eq=False, repr=False)
class Design(Shown):
    """n architectures and the tokens each is trained on. Every property is an array of floats; a dense model has one
    expert per layer, all of it in use."""

    shape: Shape
    tokens: Array
    seq_len: Any
    unique_tokens: Array
    d_ff_reference: int | None = None

    @classmethod
    def of(cls, model: ModelConfig | Shape, tokens: Any, seq_len: Any, unique_tokens: Any = None) -> "Design":
        """From one config or a lattice. `unique_tokens` defaults to `tokens`: nothing is repeated."""
        reference = None
        if isinstance(model, ModelConfig):
            reference = model.moe.d_ff_reference if model.moe else None
            model = Shape.of(model)
        tokens = np.asarray(tokens, float)
        unique = tokens if unique_tokens is None else np.minimum(np.asarray(unique_tokens, float), tokens)
        return cls(model, tokens, seq_len, unique, reference)

    @cached_property
    def count(self) -> ParameterCount:
        """Exact parameters by part."""
        return count_parameters(self.shape)

    @cached_property
    def dense(self) -> Array:
        """Where no layer is MoE."""
        return np.asarray(self.shape.n_moe_layers) == 0

    @cached_property
    def params_total(self) -> Array:
        """All parameters, tied embeddings once."""
        return _float(self.count.params_total)

    @cached_property
    def params_active(self) -> Array:
        """Parameters one token uses, embeddings included."""
        return _float(self.count.params_active)

    @cached_property
    def params_without_router(self) -> Array:
        """Non-embedding parameters without routers."""
        return _float(self.count.params_non_embedding - self.count.router)

    @cached_property
    def params_active_without_router(self) -> Array:
        """Non-embedding parameters one token uses, without routers."""
        return _float(self.count.params_active_non_embedding - self.count.router)

    @cached_property
    def params_dense(self) -> Array:
        """The dense model of the same depth and width, without embeddings: each MoE layer keeps one routed expert."""
        one = _float(self.count.experts) / np.maximum(_float(self.shape.n_experts), 1)
        return self.params_without_router - _float(self.count.experts) + one

    @cached_property
    def granularity(self) -> Array:
        """G = d_ff / d_expert, with d_ff the width the layer replaces (top_k d_expert + d_shared unless stated)."""
        return np.where(self.dense, 1.0, self._reference / self._d_expert)

    @cached_property
    def expansion(self) -> Array:
        """X = n_experts d_expert / d_ff."""
        return np.where(self.dense, 1.0, self.n_experts * self._d_expert / self._reference)

    @cached_property
    def n_experts(self) -> Array:
        """Routed experts in a MoE layer; 1 where dense."""
        return np.where(self.dense, 1.0, _float(self.shape.n_experts))

    @cached_property
    def top_k(self) -> Array:
        """Routed experts that one token uses; 1 where dense."""
        return np.where(self.dense, 1.0, _float(self.shape.top_k))

    @cached_property
    def n_shared(self) -> Array:
        """Shared experts in units of one routed expert's width: d_shared / d_expert."""
        return np.where(self.dense, 0.0, _float(self.shape.d_shared) / self._d_expert)

    @cached_property
    def sparsity(self) -> Array:
        """S = 1 - K/E."""
        return 1 - self.top_k / self.n_experts

    @cached_property
    def expert_ratio(self) -> Array:
        """A MoE layer's feed-forward width over the width in use: E for top-1 without shared experts, 1 for dense."""
        shared = self.n_shared
        return np.where(self.dense, 1.0, (self.n_experts + shared) / (self.top_k + shared))

    @cached_property
    def width_ratio(self) -> Array:
        """Feed-forward width of all layers, dense ones and shared experts included, over the width in use: what E / K
        is of a model with routed experts alone in every layer; 1 where dense."""
        return width_ratio(self.shape)

    @cached_property
    def train_flops(self) -> Array:
        """Exact training FLOPs: attention scores (full square), router and head included."""
        return _float(count_flops(self.shape, self.seq_len).train) * self.tokens

    @cached_property
    def train_flops_without_head(self) -> Array:
        """Exact training FLOPs without the output head."""
        flops = count_flops(self.shape, self.seq_len)
        return 3.0 * (_float(flops.forward) - _float(flops.head)) * self.tokens

    @cached_property
    def all_moe(self) -> Array:
        """Where every layer is MoE."""
        return np.asarray(self.shape.n_moe_layers) == np.asarray(self.shape.n_layers)

    def in_tables(self, name: str) -> Array:
        """A variable as a table of runs counts it: routers among the parameters, the head among the FLOPs, experts of
        the MoE layers alone."""
        if name in ("expert_ratio", "sparsity"):
            return np.asarray(getattr(self, name))
        if name == "train_flops":
            return self.train_flops
        if name == "params_dense":
            return self.params_dense + _float(self.count.router)
        return _float(getattr(self.count, name))

    @cached_property
    def _d_expert(self) -> Array:
        return np.maximum(_float(self.shape.d_expert), 1.0)

    @cached_property
    def _reference(self) -> Array:
        if self.d_ff_reference is not None:
            return _float(self.d_ff_reference)
        return np.maximum(_float(self.shape.top_k) * self._d_expert + _float(self.shape.d_shared), 1.0)


def width_ratio(shape: Shape) -> Array:
    """Feed-forward width of all layers over the width that a token uses; 1 where no layer is MoE."""
    moe, plain = _float(shape.n_moe_layers), _float(shape.n_layers) - shape.n_moe_layers
    always = moe * shape.d_shared + plain * shape.d_ff
    routed = moe * shape.d_expert
    return np.asarray((routed * shape.n_experts + always) / (routed * shape.top_k + always))


def _float(value: Any) -> Array:
    return np.asarray(value, float)
