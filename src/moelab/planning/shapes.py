"""The shapes of a space's designs: what depends on the backbone or on the experts alone is computed once per row."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import Shape
from moelab.architecture.layers import local_tokens
from moelab.architecture.memory import kv_elements_per_token, kv_elements_windowed
from moelab.planning.attention_axis import latent_sizes
from moelab.planning.emit import base_model
from moelab.planning.space import Space
from moelab.planning.tables import BACKBONE, OPTION, patterns_of

Array = NDArray[Any]

LATENT = {
    "mla_q_rank": "q_lora_rank",
    "mla_kv_rank": "kv_lora_rank",
    "mla_nope_dim": "qk_nope_head_dim",
    "mla_rope_dim": "qk_rope_head_dim",
    "mla_v_dim": "v_head_dim",
}
"""The sizes of latent attention: a shape's field, a config's field."""


class ShapeTable:
    """The rows of backbones and of options (`BACKBONE`, `OPTION`) of a space, and the shapes of their combinations."""

    def __init__(self, space: Space, backbones: Array, options: Array) -> None:
        self.space, self.backbones, self.options = space, backbones, options
        self.patterns = patterns_of(space)
        self.model = base_model(space)
        self._base = Shape.of(self.model)
        self._backbone = dict(zip(BACKBONE, np.ascontiguousarray(backbones.T), strict=True))
        self._option = dict(zip(OPTION, np.ascontiguousarray(options.T), strict=True))
        pattern = self._backbone.pop("pattern")
        self._backbone |= self._layers(pattern) | self._latent(pattern)
        self._option["slots"] = np.maximum(self._option["top_k"] + self._shared_slots(), 1)
        self.shared_width = bool(self._option["d_shared"].any())
        self.experts = _experts_of(self._option)
        self._backbone, self._option = (_shortened(columns) for columns in (self._backbone, self._option))
        self._kv = lru_cache(maxsize=8)(self._kv_of)

    def _layers(self, pattern: Array) -> dict[str, Array]:
        """Layers that see a window or a chunk, and what they see, by backbone."""
        depth = self._backbone["n_layers"]
        names = ("window", "n_window_layers", "n_chunk_layers", "window_kv_heads", "mtp_local")
        columns = {name: np.zeros_like(depth) for name in names}
        own_heads = self.model.sliding_n_kv_heads or 0
        for number, kind in enumerate(self.patterns):
            rows = pattern == number
            if kind.kind != "window" or not rows.any():
                continue
            columns["window"][rows], columns["window_kv_heads"][rows] = kind.window, own_heads
            for name, word in (("n_window_layers", "window"), ("n_chunk_layers", "chunk")):
                columns[name][rows] = _repeated([layer == word for layer in kind.layers], depth[rows])
            last = (depth[rows] - 1) % len(kind.layers)
            columns["mtp_local"][rows] = np.array([layer != "full" for layer in kind.layers])[last]
        return columns

    def _latent(self, pattern: Array) -> dict[str, Array]:
        """The sizes of latent attention by backbone, 0 where it is not latent."""
        columns = {name: np.zeros_like(pattern) for name in LATENT}
        for number, kind in enumerate(self.patterns):
            if kind.kind != "latent":
                continue
            for i in np.flatnonzero(pattern == number):
                mla = kind.mla or latent_sizes(int(self._backbone["d_model"][i]), int(self._backbone["head_dim"][i]))
                for name, field in LATENT.items():
                    columns[name][i] = getattr(mla, field) or 0
        return columns

    def _shared_slots(self) -> Array:
        """Shared experts that are as wide as routed ones, by option."""
        return np.where(self._option["d_shared"] > 0, 0, self._option["n_shared_experts"])

    def shape(self, backbone: Array, option: Array) -> Shape:
        """The shapes of rows of backbones with rows of options, which broadcast."""
        b = {name: column[backbone] if np.ndim(column) else column for name, column in self._backbone.items()}
        o = {name: column[option] if np.ndim(column) else column for name, column in self._option.items()}
        d_expert = self._d_expert(b["d_ff"], o)
        every, leading, experts = np.maximum(o["moe_every"], 1), o["n_dense_layers"], o["n_experts"]
        after = b["n_layers"] - leading
        moe_layers = (experts > 0) * np.maximum(after // every, 0)
        sizes = b | {
            "n_moe_layers": moe_layers,
            "n_experts": experts,
            "top_k": o["top_k"],
            "d_expert": d_expert,
            "n_shared_experts": o["n_shared_experts"],
            "d_shared": np.where(o["d_shared"] > 0, o["d_shared"], o["n_shared_experts"] * d_expert),
            "mtp_dense": (experts > 0) * (after % every != 0) if np.any(b["mtp_layers"]) else 0,
            "hash_layers": np.minimum(self._base.hash_layers, moe_layers) if self._base.hash_layers else 0,
        }
        return replace(self._base, **sizes)

    def _d_expert(self, d_ff: Any, o: dict[str, Any]) -> Any:
        """The width of a routed expert, 0 where dense: what the shared experts leave of d_ff, over the slots."""
        step, slots, left = self.space.d_expert_step, o["slots"], d_ff - o["d_shared"]
        width = (2 * left + slots * step) // (2 * slots * step) * step
        width = np.maximum(width, np.where(o["d_shared"] > 0, 0, step))
        return (o["n_experts"] > 0) * np.where(o["d_expert"] > 0, o["d_expert"], width)

    def exists(self, shape: Shape) -> Array:
        """Which shapes are designs: dense ones, and MoE with routed layers and experts that are wide enough."""
        moe = np.asarray(shape.n_experts) > 0
        routed = np.asarray(shape.n_moe_layers) > self._base.hash_layers
        return ~moe | ((shape.d_expert >= self.space.min_d_expert) & routed)

    def kv_elements(self, context: int) -> Array:
        """Numbers in the KV cache of one sequence of `context` tokens, by backbone."""
        return self._kv(context)

    def _kv_of(self, context: int) -> Array:
        rows = np.arange(len(self.backbones))
        shape = self.shape(rows, np.zeros(len(rows), np.int64))
        windowed = kv_elements_windowed(shape) * local_tokens(shape, context)
        return np.asarray(kv_elements_per_token(shape) * context + windowed, float) + np.zeros(len(rows))


def _experts_of(option: dict[str, Array]) -> dict[str, Array]:
    """What laws read of the experts, by option: dense is one expert, in use. Ratios of widths hold where shared experts
    are as wide as routed ones."""
    moe = option["n_experts"] > 0
    experts, top_k, shared = (
        np.where(moe, option[name], dense) * 1.0
        for name, dense in (("n_experts", 1), ("top_k", 1), ("n_shared_experts", 0))
    )
    return {
        "n_experts": experts,
        "top_k": top_k,
        "sparsity": 1 - top_k / experts,
        "n_shared": shared,
        "granularity": np.where(moe, top_k + shared, 1.0),
        "expansion": experts / (top_k + shared),
        "expert_ratio": (experts + shared) / (top_k + shared),
        "all_moe": 1.0 * (moe & (option["n_dense_layers"] == 0) & (option["moe_every"] == 1)),
    }


def _repeated(flags: list[bool], depth: Array) -> Array:
    """How many of `depth` layers are flagged by a pattern that repeats over them."""
    before = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(depth // len(flags) * before[-1] + before[depth % len(flags)])


def _shortened(columns: dict[str, Array]) -> dict[str, Any]:
    """Columns of zeros as the number 0, which the formulas leave out."""
    return {name: column if column.any() else 0 for name, column in columns.items()}
