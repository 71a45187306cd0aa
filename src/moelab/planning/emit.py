"""From a row of a lattice to a validated architecture, and the model whose further options all of them have."""

from collections.abc import Mapping
from typing import Any

from moelab.architecture import ModelConfig
from moelab.architecture.routing_choice import RoutingChoice
from moelab.planning.attention_axis import LayerPattern, latent_sizes
from moelab.planning.space import Space

_SIZES = (
    "n_dense_layers", "moe_every", "moe", "mla", "sliding_window", "sliding_pattern", "sliding_n_kv_heads",
    "sliding_rope_theta", "mtp_layers",
)  # fmt: skip
"""What a design sets or leaves out, whatever the template has."""


def routing_of(space: Space, n_shared_experts: int) -> RoutingChoice:
    """How a design's experts are scored and balanced; `released`: as the models of today with such experts are."""
    if space.routing != "released":
        return space.routing
    return "loss_free" if n_shared_experts else "softmax"


def base_model(space: Space) -> ModelConfig:
    """The smallest model with the options that all designs of a space have."""
    if space.template is not None:
        return space.template
    moe = {"n_experts": 2, "top_k": 1, "d_expert": 1, "routing": routing_of(space, 0)}
    return ModelConfig.parse(
        {
            "vocab_size": space.vocab_size, "d_model": 2, "n_layers": 1, "n_heads": 1, "head_dim": 2,
            "tie_embeddings": space.tie_embeddings, "qk_norm": space.qk_norm, "activation": space.activation,
            "moe": moe,
        }
    )  # fmt: skip


def config_of(space: Space, base: ModelConfig, pattern: LayerPattern, row: Mapping[str, int]) -> ModelConfig:
    """The architecture of one row (the columns of its backbone and of its experts), with the options of `base`.

    Raises InputError where the template's options do not fit these sizes.
    """
    options = {name: value for name, value in base.to_dict().items() if name not in _SIZES}
    config: dict[str, Any] = options | {
        name: row[name] for name in ("d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim")
    }
    config |= _attention(base, pattern, row)
    if row["mtp_layers"]:
        config["mtp_layers"] = row["mtp_layers"]
    if not row["n_experts"]:
        return ModelConfig.parse(config | {"d_ff": row["d_ff"]})
    all_moe = row["n_dense_layers"] == 0 and row["moe_every"] == 1
    layers = {"n_dense_layers": row["n_dense_layers"], "moe_every": row["moe_every"]}
    return ModelConfig.parse(config | layers | {"d_ff": 0 if all_moe else row["d_ff"], "moe": _experts(space, row)})


def _attention(base: ModelConfig, pattern: LayerPattern, row: Mapping[str, int]) -> dict[str, Any]:
    if pattern.kind == "latent":
        mla = pattern.mla or latent_sizes(row["d_model"], row["head_dim"])
        return {"mla": mla.to_dict()} | ({} if base.mla is not None else {"qk_norm": "none"})
    if pattern.kind == "full":
        return {}
    kept = ("sliding_n_kv_heads", "sliding_rope_theta")
    own = {name: getattr(base, name) for name in kept if getattr(base, name) is not None}
    return own | {"sliding_window": pattern.window, "sliding_pattern": list(pattern.layers)}


def _experts(space: Space, row: Mapping[str, int]) -> dict[str, Any]:
    """The MoE layer: the template's options, its sizes from the row."""
    template = None if space.template is None else space.template.moe
    routing = routing_of(space, row["n_shared_experts"])
    moe: dict[str, Any] = {"routing": routing} if template is None else template.to_dict()
    sizes = ("n_experts", "top_k", "d_expert", "n_shared_experts", "d_shared")
    moe |= {name: row[name] for name in sizes}
    if space.normalize_gates is not None:
        moe["normalize_gates"] = space.normalize_gates
    elif row["top_k"] == 1 or template is None:
        moe["normalize_gates"] = row["top_k"] > 1
    return moe
