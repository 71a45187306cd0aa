"""Rotary positions in a config.json: base, scaling, and the part of a head that turns; in today's and in older keys."""

from typing import Any

from moelab.architecture.huggingface.settings import Settings

KINDS = {
    "default": None,
    "linear": "linear",
    "llama3": "llama3",
    "yarn": "yarn",
    "longrope": "longrope",
    "su": "longrope",
}
"""Types of scaling by their names in config.json; `dynamic` changes with the length of the sequence."""

_OPTIONS = {
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim"),
    "longrope": ("attention_factor", "short_mscale", "long_mscale"),
}
"""Numbers that each kind may have beside its factor."""


def rotary(s: Settings, head_dim: int, theta: float) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling` and `rotary_dim`. `theta` is the class's default base."""
    scaling = _given(s)
    factor = scaling.number_or_none("partial_rotary_factor") or s.number_or_none("partial_rotary_factor") or 1.0
    turned = (int(head_dim * factor) + 1) // 2 * 2
    if not 0 < turned <= head_dim:
        s.wrong("partial_rotary_factor", "a share above 0 and at most 1")
    return {
        "rope_theta": base(s, scaling, theta),
        "rope_scaling": scaled(s, scaling),
        "rotary_dim": None if turned == head_dim else turned,
    }


def rotary_by_kind(s: Settings, theta: float, local_theta: float | None = None) -> dict[str, Any]:
    """The same for classes whose layers with a window have a base of their own and no scaling (Gemma 3, OLMo 3)."""
    given = s.inner("rope_parameters")
    nested = "full_attention" in given.values or "sliding_attention" in given.values
    full = given.inner("full_attention") if nested else _given(s)
    local = given.inner("sliding_attention") if nested else Settings({}, {}, s.where)
    if scaled(s, local):
        s.refuse("rope_parameters", "scaled positions in layers with a window")
    own = local.number_or_none("rope_theta") or s.number_or_none("rope_local_base_freq")
    wide = base(s, full, theta)
    return {
        "rope_theta": wide,
        "rope_scaling": scaled(s, full),
        "sliding_rope_theta": own or (wide if local_theta is None else local_theta),
    }


def _given(s: Settings) -> Settings:
    """The mapping that describes positions: the older key goes first, as in transformers."""
    return s.inner("rope_scaling") if s.has("rope_scaling") else s.inner("rope_parameters")


def base(s: Settings, scaling: Settings, theta: float) -> float:
    """The base, from the mapping, from its own key, or the class's default."""
    return scaling.number_or_none("rope_theta") or s.number_or_none("rope_theta") or theta


def scaled(s: Settings, scaling: Settings) -> dict[str, Any] | None:
    """`rope_scaling` as moelab writes it; None for plain positions."""
    key = scaling.first("rope_type", "type")
    if scaling.get(key) is None:
        return None
    kind = scaling.choice(key, KINDS)
    if kind is None:
        return None
    context = s.count_or_none("original_max_position_embeddings")
    context = context or scaling.count_or_none("original_max_position_embeddings")
    longest = s.count_or_none("max_position_embeddings")
    context = context or longest
    factor = scaling.number_or_none("factor")
    if factor is None and kind in ("yarn", "longrope") and longest and context:
        factor = longest / context
    result: dict[str, Any] = {"kind": kind, "factor": factor or scaling.number("factor")}
    if kind != "linear":
        result["original_context"] = context
    for name in _OPTIONS.get(kind, ()):
        if scaling.get(name):
            result[name] = scaling.number(name)
    if kind == "yarn" and scaling.get("truncate") is not None:
        result["truncate"] = scaling.flag("truncate")
    if kind == "longrope":
        result |= {f"{name}s": scaling.items(name) for name in ("short_factor", "long_factor")}
    return result
