"""Real architectures nearest to a target, with exact counts: backbones from a lattice, experts solved on a backbone."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from moelab.architecture import ModelConfig, Shape, count_flops, count_parameters
from moelab.errors import InputError
from moelab.experiments.base import Template
from moelab.planning import Space
from moelab.planning.lattice import enumerate_designs
from moelab.quantities import format_number

_SMALL = 256
PARAMS_OFF, _RATE_OFF, _MIN_D_EXPERT = 0.02, 0.06, 8
"""How far a MoE may be off its total parameters and its activation rate, relatively; the narrowest expert tried."""
_ASPECT_COST = 0.03
"""A shape whose width over depth is a factor e from the usual counts as 3 % off in parameters."""


def space_of(template: Template, changes: dict[str, Any], where: str = "shapes") -> Space:
    """The lattice of dense backbones around the study's base, with the axes in `changes` replaced.

    Head size, feed-forward ratio, vocabulary and kind of layers are the base's. Raises InputError naming the axis.
    """
    base = template.backbone()
    small = base.d_model < _SMALL
    head = base.head_dim
    axes: dict[str, Any] = {
        "d_model": {"from": head, "to": max(8 * base.d_model, 4 * head), "step": head},
        "n_layers": {"from": 2, "to": max(16, 4 * base.n_layers), "step": 1},
        "aspect": [6, 24] if small else [48, 160],
        "head_dim": [head],
        "heads_per_kv": [base.n_heads // base.n_kv_heads],
        "ffn_ratio": [base.d_ff / base.d_model],
        "kinds": ["dense"],
        "d_ff_step": 8 if small else 64,
        "vocab_size": base.vocab_size,
        "seq_len": template.seq_len,
        "tie_embeddings": base.tie_embeddings,
        "activation": base.activation,
        "qk_norm": base.qk_norm,
    }
    return Space.parse({**axes, **changes}, where)


def backbones(template: Template, changes: dict[str, Any]) -> list[ModelConfig]:
    """Every dense backbone of the lattice, with the base's other settings."""
    lattice = enumerate_designs(space_of(template, changes))
    base = template.backbone().to_dict()
    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff")
    columns = {name: lattice.of_backbone(name) for name in names}
    if lattice.is_moe.any():  # where `changes` ask for them: without a dense layer they have no d_ff
        without = lattice.is_moe & (lattice.n_dense_layers == 0) & (lattice.of_option("moe_every") == 1)
        columns["d_ff"] = np.where(without, 0, columns["d_ff"])
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [ModelConfig.parse({**base, **dict(zip(names, row, strict=True))}) for row in rows]


class Candidates:
    """Models to choose from, with their exact counts and a penalty for an unusual width over depth (n,)."""

    def __init__(self, models: list[ModelConfig], seq_len: int) -> None:
        self.models = models
        counts = [count_parameters(each) for each in models]
        self.params_total = np.array([each.params_total for each in counts], float)
        self.params_active = np.array([each.params_active for each in counts], float)
        self.params_non_embedding = np.array([each.params_non_embedding for each in counts], float)
        self.flops_per_token = np.array([count_flops(each, seq_len).train for each in models], float)
        aspects = np.log([each.d_model / each.n_layers for each in models])
        self._unusual = _ASPECT_COST * np.abs(aspects - np.median(aspects))

    def nearest(self, targets: Iterable[float], reached: np.ndarray, field: str) -> list[tuple[ModelConfig, float]]:
        """For each target the model whose value in `reached` (n,) is nearest, near the usual width over depth.

        A model that serves several targets stands once, with the target it misses most. Raises InputError naming
        `field` where a target lies outside what is reached by more than a factor of two.
        """
        low, high = reached.min(), reached.max()
        found: dict[int, float] = {}
        for target in targets:
            if not low / 2 <= target <= high * 2:
                given, least, most = (format_number(value, 4) for value in (target, low, high))
                raise InputError(f"{field}: {given} lies outside what the shapes reach, {least} to {most}")
            off = np.abs(np.log(reached / target))
            place = int(np.argmin(off + self._unusual))
            if place not in found or off[place] > abs(np.log(reached[place] / found[place])):
                found[place] = float(target)
        return [(self.models[place], target) for place, target in found.items()]


def with_experts(
    template: Template,
    backbone: ModelConfig,
    *,
    n_experts: int,
    top_k: int,
    d_expert: int,
    shared: int = 0,
    n_dense_layers: int | None = None,
    moe_every: int | None = None,
    options: dict[str, Any] | None = None,
) -> ModelConfig:
    """A backbone with experts in place of its feed-forward; `shared` is the width of one shared expert."""
    sizes = {"n_experts": n_experts, "top_k": top_k, "d_expert": d_expert}
    if shared:
        sizes |= {"n_shared_experts": 1, "d_shared": shared}
    inherited = template.expert_options
    if top_k == 1:
        inherited.pop("normalize_gates", None)
    chosen = {**inherited, **(options or {})}
    layers = template.expert_layers(n_dense_layers, moe_every)
    value = {**backbone.to_dict(), "moe": {**chosen, **sizes}, **layers}
    return ModelConfig.parse(value)


def experts_at_rate(
    template: Template,
    backbone: ModelConfig,
    *,
    params_total: float,
    activation_rate: float,
    top_k: int,
    shared: bool,
    n_dense_layers: int,
    step: int,
    options: dict[str, Any],
) -> ModelConfig:
    """The MoE on a backbone nearest to given total parameters and activation rate (arXiv 2506.12119), exactly counted.

    With `shared` one shared expert is as wide as the routed ones a token uses, as in the paper. Every expert width in
    multiples of `step`, from 8 on, is tried, with the experts that fill up the parameters. Raises InputError where the
    nearest is more than 2 % off in parameters or 6 % in the rate.
    """
    d = backbone.d_model
    widths = np.arange(step, 8 * d + step, step)
    widths = widths[widths >= _MIN_D_EXPERT]
    probe = with_experts(
        template, backbone, n_experts=top_k + 1, top_k=top_k, d_expert=step, n_dense_layers=n_dense_layers,
        shared=top_k * step if shared else 0, options=options,
    )  # fmt: skip
    shape = _resized(Shape.of(probe), np.full_like(widths, top_k + 1), widths, top_k, shared)
    more = _resized(Shape.of(probe), np.full_like(widths, top_k + 2), widths, top_k, shared)
    least, per_expert = (np.asarray(count_parameters(s).params_total) for s in (shape, more))
    experts = top_k + 1 + np.round((params_total - least) / (per_expert - least)).astype(np.int64)
    fits = experts > top_k
    if not fits.any():
        raise InputError(
            f"params_total: {format_number(params_total, 4)} leaves no room for experts on width {d}; "
            f"the least is {least[0]:,}"
        )
    widths, experts = widths[fits], experts[fits]
    counts = count_parameters(_resized(Shape.of(probe), experts, widths, top_k, shared))
    rates, totals = np.asarray(counts.activation_rate), np.asarray(counts.params_total)
    off_rate, off_total = np.log(rates / activation_rate), np.log(totals / params_total)
    best = int(np.argmin(np.abs(off_rate) + 3 * np.abs(off_total)))
    if abs(off_total[best]) > PARAMS_OFF or abs(off_rate[best]) > _RATE_OFF:
        raise InputError(
            f"activation_rates: {activation_rate:g} at {format_number(params_total, 4)} parameters cannot be met on "
            f"width {d}; "
            f"the nearest has {rates[best]:.3f} at {totals[best]:,} (they reach {rates.min():.3f} to "
            f"{rates.max():.3f})"
        )
    width = int(widths[best])
    return with_experts(
        template, backbone, n_experts=int(experts[best]), top_k=top_k, d_expert=width, n_dense_layers=n_dense_layers,
        shared=top_k * width if shared else 0, options=options,
    )  # fmt: skip


def _resized(shape: Shape, experts: Any, widths: Any, top_k: int, shared: bool) -> Shape:
    values = {name: getattr(shape, name) for name in Shape.__dataclass_fields__}
    wide = top_k * widths if shared else np.zeros_like(widths)
    return Shape(**{**values, "n_experts": experts, "d_expert": widths, "d_shared": wide})
