"""The kinds of attention of a space: full, windowed or latent, with their heads, as a list in `space.yaml`."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import model_validator

from moelab.architecture.attention import LayerKind, MLAConfig
from moelab.config import Config, Count, Positive
from moelab.planning.axes import Axis, Ratios

AttentionWord = Literal["full", "window", "latent"]

HEADS = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 96, 128, 192, 256)
"""Query heads of released models (the presets, and the published configs of Llama 2 and 3, Qwen 2.5 and Gemma 3) that
tensor parallelism over eight devices, or fewer heads, divides; with doublings at both ends."""

MOST_KV_HEADS = 8
"""Most key-value heads of a released model with grouped queries, at every size (Llama 3.1 405B, Qwen3, GLM-4.5)."""

Row = tuple[int, int, int]
"""(head_dim, n_heads, n_kv_heads) of one backbone."""


class AttentionOption(Config):
    """One kind of attention, and the widths and heads with which it is searched.

    Heads are `n_heads`; or, with `heads_ratio`, the head count of released models that is nearest to ratio x d_model /
    head_dim, with 1, 2, 4 or 8 key-value heads; or d_model / head_dim. What is None comes from the space's axis of the
    same name. `layers` is the pattern of a `window` kind, `window` its size. `d_model` bounds the widths; `ffn_ratio`
    stands instead of the space's.

    Latent attention has the sizes of DeepSeek-V2 and -V3 (arXiv 2405.04434, 2412.19437) per head of 128: 64 rotary
    dimensions, a key-value latent of 512, and a query latent of 1,536 where d_model is 4,096 or more; or those of
    `mla`.
    """

    kind: AttentionWord
    n_heads: Axis | None = None
    heads_ratio: Ratios | None = None
    head_dim: Axis | None = None
    heads_per_kv: Axis | None = None
    layers: tuple[LayerKind, ...] | None = None
    window: Count | None = None
    d_model: tuple[Positive, Positive] | None = None
    ffn_ratio: Ratios | None = None
    mla: MLAConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        """One word stands for the kind with the space's own axes."""
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_heads is not None and self.heads_ratio is not None:
            raise ValueError("heads_ratio: contradicts n_heads; give one of them")
        if self.kind != "window" and (self.layers is not None or self.window is not None):
            raise ValueError(f"layers, window: only the kind window has them, got {self.kind}")
        if self.kind != "latent" and self.mla is not None:
            raise ValueError(f"mla: only the kind latent has it, got {self.kind}")
        if self.layers is not None and not any(kind != "full" for kind in self.layers):
            raise ValueError("layers: the kind window needs at least one `window` or `chunk` layer")
        if any(size % 2 for size in self.head_dim or ()):
            raise ValueError(f"head_dim: must be even for rotary embeddings, got {list(self.head_dim or ())}")
        return self

    def allows(self, d_model: int) -> bool:
        """Whether this kind is searched at a width."""
        return self.d_model is None or self.d_model[0] <= d_model <= self.d_model[1]

    def heads(self, d_model: int) -> list[Row]:
        """The heads at a width, each row once. `head_dim` and `heads_per_kv` must be set."""
        rows: list[Row] = []
        for head in self.head_dim or ():
            if self.heads_ratio is not None:
                counts = [nearest_heads(ratio * d_model / head) for ratio in self.heads_ratio]
            else:
                counts = list(self.n_heads or ([d_model // head] if d_model % head == 0 else []))
            rows += [(head, n, kv) for n in counts for kv in self._kv_heads(n)]
        return list(dict.fromkeys(rows))

    def _kv_heads(self, n_heads: int) -> list[int]:
        if self.kind == "latent":
            return [n_heads]
        if self.heads_ratio is not None:
            return [_kv_heads_for(n_heads, group) for group in self.heads_per_kv or ()]
        groups = (min(group, n_heads) for group in self.heads_per_kv or ())
        return [n_heads // group for group in groups if n_heads % group == 0]


@dataclass(frozen=True)
class LayerPattern:
    """What the layers of a kind of attention see: `layers`, repeated, with a window of `window` tokens; and
    the sizes of latent attention, None where they follow the heads."""

    kind: AttentionWord
    layers: tuple[LayerKind, ...] = ("full",)
    window: int = 0
    mla: MLAConfig | None = None

    @property
    def name(self) -> str:
        """A short name for tables."""
        if self.kind != "window":
            return self.kind
        local = [kind for kind in self.layers if kind != "full"]
        return f"{len(local)}/{len(self.layers)} {local[0]} {self.window}"


def _kv_heads_for(n_heads: int, group: int) -> int:
    """The largest power of two that divides the query heads and is at most their number over `group`, up to
    `MOST_KV_HEADS`; where each head has its own (`group` 1), all of them."""
    if group == 1:
        return n_heads
    kv = 1
    while 2 * kv <= MOST_KV_HEADS and 2 * kv * group <= n_heads and n_heads % (2 * kv) == 0:
        kv *= 2
    return kv


def nearest_heads(wanted: float) -> int:
    """The head count of released models that is nearest, by ratio."""
    at = bisect_left(HEADS, wanted)
    near = HEADS[max(0, at - 1) : at + 1]
    return min(near, key=lambda count: max(count / wanted, wanted / count))


def latent_sizes(d_model: int, head_dim: int) -> MLAConfig:
    """Latent attention by DeepSeek's ratios for heads of this width. See `AttentionOption`."""
    return MLAConfig(
        q_lora_rank=12 * head_dim if d_model >= 4096 else None,
        kv_lora_rank=4 * head_dim,
        qk_nope_head_dim=head_dim,
        qk_rope_head_dim=head_dim // 2,
        v_head_dim=head_dim,
    )
