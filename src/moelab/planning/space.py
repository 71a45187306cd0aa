"""The lattice of real architectures that a plan searches, as `space.yaml` describes it (defaults: frontier scale)."""

import math
from bisect import bisect_left
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from moelab.architecture.config import Activation
from moelab.config import Config, Context, Count, Positive
from moelab.errors import InputError
from moelab.quantities import parse_count

MAX_AXIS = 100_000
"""Most values of one axis; counting more designs would take longer than planning."""


def _axis(value: Any) -> Any:
    """A list of numbers, one number, or {from, to, step}, which includes both ends it reaches."""
    if isinstance(value, dict):
        if set(value) - {"from", "to", "step"} or not {"from", "to"} <= set(value):
            raise ValueError(f"expected a list or {{from, to, step}}, got keys {sorted(map(str, value))}")
        try:
            first, last, step = (parse_count(value.get(key, 1)) for key in ("from", "to", "step"))
        except InputError as error:
            raise ValueError(str(error).removeprefix("value: ")) from None
        if step <= 0 or last < first:
            raise ValueError(f"expected from <= to and step > 0, got {value}")
        if (count := (last - first) // step + 1) > MAX_AXIS:
            raise ValueError(f"{count:,} values, more than the {MAX_AXIS:,} of an axis; widen its step")
        return tuple(range(first, last + 1, step))
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("needs at least one value")
    return tuple(sorted(set(value)))


Axis = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(_axis), AfterValidator(_distinct)]
AxisOrZero = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_axis), AfterValidator(_distinct)]
Ratios = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_axis), AfterValidator(_distinct)]


def _default_widths() -> tuple[int, ...]:
    """Multiples of 256, then of 512 and 1,024, all of them whole numbers of heads."""
    bands = ((256, 6144, 256), (6144, 10240, 512), (10240, 16384, 1024))
    return tuple(sorted({d for first, last, step in bands for d in range(first, last + 1, step)}))


def _default_depths() -> tuple[int, ...]:
    """Every depth to 32, then every second, then every fourth."""
    return (*range(4, 33), *range(34, 65, 2), *range(68, 129, 4))


class Space(Config):
    """The architectures to search. Every combination that fits together is a design; dense ones come first.

    The feed-forward that a token uses has width `ffn_ratio` x `d_model` in dense and MoE layers. In a MoE layer it
    is split over `top_k` routed and `n_shared_experts` shared experts of equal width, rounded to `d_expert_step`. Hence
    the granularity G = top_k + n_shared_experts, as in fine-grained MoE (arXiv 2402.07871, 2401.06066).
    `aspect` bounds d_model / n_layers, which is no variable of any law. Every axis is a list or {from, to, step}.
    """

    d_model: Axis = Field(default_factory=_default_widths)
    n_layers: Axis = Field(default_factory=_default_depths)
    aspect: tuple[Positive, Positive] = (48.0, 160.0)
    head_dim: Axis = (64, 128)
    heads_per_kv: Axis = (4,)
    ffn_ratio: Ratios = (3.0, 4.0)
    kinds: tuple[Literal["dense", "moe"], ...] = ("dense", "moe")
    n_experts: Axis = (4, 8, 16, 32, 64, 128, 256, 512)
    top_k: Axis = (1, 2, 4, 6, 8)
    n_shared_experts: AxisOrZero = (0, 1, 2)
    n_dense_layers: AxisOrZero = (0, 1, 3)
    d_expert_step: Count = 64
    d_ff_step: Count = 64
    min_d_expert: Count = 64
    vocab_size: Count = Field(default=65536, le=2**31)
    seq_len: Context = 4096
    tie_embeddings: bool = False
    qk_norm: Literal["none", "head", "full"] = "head"
    activation: Activation = "swiglu"
    normalize_gates: bool | None = Field(default=None, description="null: yes, except with top_k 1")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect: expected [low, high] of d_model / n_layers, got {list(self.aspect)}")
        if any(size % 2 for size in self.head_dim):
            raise ValueError(f"head_dim: must be even for rotary embeddings, got {list(self.head_dim)}")
        if not self.kinds:
            raise ValueError("kinds: expected dense, moe or both")
        return self


Band = tuple[int, range, list[tuple[int, int, int]]]
"""A width, the positions of its depths within the space's aspect, and its rows of (head_dim, heads_per_kv, d_ff)."""


def check_counts(space: Space) -> None:
    """Raises InputError where the parameters of the largest design would overflow a whole number of 64 bits."""
    widest = max(space.ffn_ratio) * space.d_model[-1] + space.d_expert_step
    if 3.0 * space.n_layers[-1] * space.d_model[-1] * widest * space.n_experts[-1] > 2**62:
        raise InputError("space: the largest design would have over 4e18 parameters; shorten d_model or n_experts")


def bands_of(space: Space) -> list[Band]:
    """The backbones by width, which are counted before the arrays are built."""
    low, high = space.aspect
    bands = []
    for d in space.d_model:
        rest = [
            (head, min(group, d // head), _rounded(ratio * d, space.d_ff_step))
            for head in space.head_dim
            if d % head == 0
            for group in space.heads_per_kv
            if d // head % min(group, d // head) == 0
            for ratio in space.ffn_ratio
        ]
        first = bisect_left(space.n_layers, True, key=lambda depth: d / depth <= high)
        last = bisect_left(space.n_layers, True, key=lambda depth: d / depth < low)
        bands.append((d, range(first, max(first, last)), list(dict.fromkeys(rest))))
    return bands


def backbones_of(space: Space, bands: list[Band]) -> NDArray[np.int64]:
    """Rows of (d_model, n_layers, head_dim, heads_per_kv, d_ff)."""
    blocks = [np.zeros((0, 5), np.int64)]
    for d, depths, rest in bands:
        block = np.empty((len(depths), len(rest), 5), np.int64)
        block[..., 0] = d
        block[..., 1] = np.array(space.n_layers[depths.start : depths.stop], np.int64)[:, None]
        block[..., 2:] = np.array(rest, np.int64).reshape(-1, 3)
        blocks.append(block.reshape(-1, 5))
    rows = np.concatenate(blocks)
    if not len(rows):
        raise InputError(
            f"space: no backbone has d_model / n_layers within {list(space.aspect)}, d_model a multiple of head_dim "
            f"{list(space.head_dim)} and heads a multiple of heads_per_kv {list(space.heads_per_kv)}"
        )
    return rows


def _rounded(width: float, step: int) -> int:
    return max(step, math.floor(width / step + 0.5) * step)


def count_moe_options(space: Space) -> int:
    """How many rows `moe_options` has."""
    pairs = sum(bisect_left(space.top_k, experts) for experts in space.n_experts)
    return pairs * len(space.n_shared_experts) * len(space.n_dense_layers)


def moe_options(space: Space) -> NDArray[np.int64]:
    """Rows of (n_experts, top_k, n_shared_experts, n_dense_layers)."""
    rows = [
        (experts, top_k, shared, leading)
        for experts in space.n_experts
        for top_k in space.top_k[: bisect_left(space.top_k, experts)]
        for shared in space.n_shared_experts
        for leading in space.n_dense_layers
    ]
    if not rows:
        raise InputError("space: no n_experts is larger than the smallest top_k; add experts or kinds: [dense]")
    return np.array(rows, np.int64)
