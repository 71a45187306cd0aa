"""The space around one architecture: that shape, and one step from it on every axis."""

from bisect import bisect_left
from pathlib import Path
from typing import Any

from moelab.architecture import ModelConfig, load_model
from moelab.errors import InputError
from moelab.planning.attention_axis import HEADS
from moelab.planning.space import Space
from moelab.runs.find import find_design

EIGHTH = 8
"""A step of a width is the power of two nearest below an eighth of it."""


def near_space(config: str | Path | ModelConfig, seq_len: int | None = None) -> Space:
    """The designs around an architecture (whatever `load_model` takes), itself among them, with its other options.

    One step is an eighth of a width, a tenth of the depth, half and twice of experts, choices, heads per key-value head
    and width of a head, the neighbouring head count of released models, and one more or fewer shared experts, leading
    dense layers and layers between MoE layers. Heads change one at a time. What only saves compute in the eyes of the
    laws stays: windows, latent sizes and multi-token prediction. Raises InputError for routers other than token choice.
    """
    model = config if isinstance(config, ModelConfig) else load_model(find_design(config))
    if model.moe is not None and model.moe.router != "token_choice":
        raise InputError(f"near: the planner's designs route by token choice, this model by {model.moe.router}")
    axes: dict[str, Any] = {
        "template": model,
        "d_model": _around(model.d_model, _eighth(model.d_model)),
        "n_layers": _around(model.n_layers, max(1, round(model.n_layers / 10))),
        "aspect": (1e-3, 1e9),
        "attention": _attention(model),
        "mtp_layers": (model.mtp_layers or 0,),
        "kinds": ("dense",) if model.moe is None else ("moe",),
        "d_expert_step": 1,
        "d_ff_step": 1,
        "min_d_expert": 1,
        **({} if seq_len is None else {"seq_len": seq_len}),
    }
    if model.d_ff:
        axes["d_ff"] = _around(model.d_ff, _eighth(model.d_ff))
    if model.moe is not None:
        axes |= _experts(model)
    return Space.parse(axes, "near")


def _experts(model: ModelConfig) -> dict[str, Any]:
    """The axes of the experts, as far as the template's groups of experts allow them."""
    moe = model.moe
    assert moe is not None
    experts, top_k = _half_and_twice(moe.n_experts), _half_and_twice(moe.top_k)
    if moe.n_group is not None and moe.topk_group is not None:
        groups, used = moe.n_group, moe.topk_group
        experts = tuple(n for n in experts if n % groups == 0)
        top_k = tuple(k for k in top_k if k <= used * (min(experts) // groups))
    tied = moe.d_shared in (0, moe.n_shared_experts * moe.d_expert)
    layers = (moe.n_shared_experts, model.n_dense_layers, model.moe_every)
    steps = [(0, 0, 0), *((step if axis == at else 0 for at in range(3)) for axis in range(3) for step in (-1, 1))]
    layouts = [tuple(value + step for value, step in zip(layers, move, strict=True)) for move in steps]
    least = (0, 0, 1)
    names = ("n_shared_experts", "n_dense_layers", "moe_every")
    return {
        "n_experts": experts,
        "top_k": top_k,
        "d_expert": _around(moe.d_expert, _eighth(moe.d_expert)),
        "layouts": [
            dict(zip(names, layout, strict=True))
            for layout in layouts
            if all(value >= low for value, low in zip(layout, least, strict=True))
            and (moe.n_shared_experts > 0 or layout[0] == 0 or not moe.shared_gate)
            and (layout[0] > 0 or not moe.shared_gate)
        ],
        **({} if tied else {"d_shared": _around(moe.d_shared, _eighth(moe.d_shared))}),
        **({} if model.d_ff else {"d_ff": (moe.top_k * moe.d_expert + moe.d_shared,)}),
    }


def _attention(model: ModelConfig) -> list[dict[str, Any]]:
    """The model's attention, and the same with one change of its heads."""
    option: dict[str, Any] = {"kind": "full"}
    if model.mla is not None:
        option = {"kind": "latent", "mla": model.mla.to_dict()}
    elif model.sliding_window is not None:
        layers = list(model.sliding_pattern or ("window",))
        option = {"kind": "window", "layers": layers, "window": model.sliding_window}
    group = model.n_heads // model.n_kv_heads
    rows = [(model.head_dim, heads, group) for heads in (model.n_heads, *_neighbours(model.n_heads, group))]
    if model.mla is None:
        rows += [(model.head_dim, model.n_heads, other) for other in _half_and_twice(group) if other != group]
        sizes = [size for size in _half_and_twice(model.head_dim) if size != model.head_dim and size % 2 == 0]
        rows += [(size, model.n_heads, group) for size in sizes if size >= (model.rotary_dim or 0)]
    own = model.sliding_n_kv_heads or 1
    return [
        option | {"head_dim": size, "n_heads": heads, "heads_per_kv": per_kv}
        for size, heads, per_kv in rows
        if heads % per_kv == 0 and heads % own == 0
    ]


def _neighbours(heads: int, group: int) -> tuple[int, ...]:
    """The next smaller and larger head count of released models that whole groups divide."""
    counts = [count for count in HEADS if count % group == 0 and count != heads]
    at = bisect_left(counts, heads)
    return tuple(counts[max(0, at - 1) : at + 1])


def _eighth(value: int) -> int:
    return 1 << max(0, (value // EIGHTH).bit_length() - 1)


def _around(value: int, step: int) -> tuple[int, ...]:
    return tuple(near for near in (value - step, value, value + step) if near > 0)


def _half_and_twice(value: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, value // 2), value, 2 * value}))
