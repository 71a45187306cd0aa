"""What one class of transformers can be: the architectures that it represents exactly, and its names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from moelab.architecture import ModelConfig, MoEConfig
from moelab.architecture.attention import AttentionBias
from moelab.architecture.buildable import options_of

Shared = Literal["none", "plain", "gated"]

MOE_OPTIONS = {
    "router_bias": "a learned bias in the router",
    "expert_bias": "biased experts",
    "d_latent": "experts in a latent space",
    "n_group": "group-limited routing",
    "hash_layers": "hash routing in the first layers",
    "input_gates": "gates on the experts' input",
}
"""Options of a MoE layer that a class has only where it lists them, with the words for them."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One class of transformers: the architectures it represents exactly, and its names for settings and tensors.

    `options` are those of `options_of` and of `MOE_OPTIONS` that the class may have, `required` those that it always
    has; `details` lists what it lacks of their values. `windows`: which layers may see a window, `all` of them
    or any `pattern`. `dense_layers` are those of a MoE model that may be dense: `none`, the `first` ones, or `any`.
    `gates` lists the values of normalize_gates, `whole_shared` holds shared experts to whole multiples of d_expert,
    `whole_heads` the heads to d_model. `scales` classes multiply gates by routed_scaling, others get it folded into the
    experts. `has_bias` classes have a balancing bias (zeros where none was trained). `ungated_as_gate` classes have no
    shared experts without a gate: a gate of zeros, which is 1/2, and a doubled down projection are the same function.
    `interleaved` classes rotate neighbouring pairs: q and k are reordered. `stacked` classes store experts stacked and
    transposed, with gate's and up's columns in turn.
    """

    name: str
    model_type: str
    class_name: str
    moe: bool = True
    qk_norm: tuple[str, ...]
    attention_bias: tuple[AttentionBias, ...] = (False,)
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    details: Callable[[ModelConfig], list[str]] = lambda config: []
    windows: Literal["all", "pattern"] = "all"
    score: str = "softmax"
    gates: tuple[bool, ...] = (True, False)
    shared: tuple[Shared, ...] = ("none",)
    dense_layers: Literal["none", "first", "any"] = "none"
    whole_shared: bool = False
    whole_heads: bool = False
    divided_width: bool = False
    has_bias: bool = False
    scales: bool = False
    ungated_as_gate: bool = False
    interleaved: bool = False
    stacked: bool = False
    moe_name: str = "mlp"
    bias_name: str = "gate.e_score_correction_bias"
    expert_names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    shared_name: str = "shared_experts"
    settings: Callable[[ModelConfig], dict[str, Any]]

    def lacks(self, config: ModelConfig) -> list[str]:
        """What the class lacks of this architecture, as `field: what it has instead`; empty where it fits."""
        missing = []
        if config.qk_norm not in self.qk_norm:
            missing.append(f"qk_norm {config.qk_norm} (it has {' or '.join(self.qk_norm)})")
        if config.attention_bias not in self.attention_bias:
            missing.append(f"attention_bias {str(config.attention_bias).lower()}")
        if self.whole_heads and config.n_heads * config.head_dim != config.d_model:
            missing.append(f"n_heads x head_dim other than d_model ({config.d_model})")
        if self.divided_width and config.d_model % config.n_heads:
            missing.append("a d_model that is no multiple of n_heads")
        missing += self._lacks_options(config)
        return missing if config.moe is None else missing + self._lacks_moe(config, config.moe)

    def _lacks_options(self, config: ModelConfig) -> list[str]:
        own = exported_options(config)
        missing = [name for name in own if name not in self.options]
        missing += [f"a model without {name}" for name in self.required if name not in own]
        if "sliding_window" in self.options and config.sliding_window:
            kinds = {config.layer_kind(layer) for layer in range(config.n_layers)}
            if "chunk" in kinds:
                missing.append("sliding_pattern with chunks")
            if self.windows == "all" and "full" in kinds:
                missing.append("sliding_pattern with full layers")
            if config.sliding_n_kv_heads not in (None, config.n_kv_heads):
                missing.append("sliding_n_kv_heads")
            if "sliding_rope_theta" not in self.options and config.sliding_rope_theta is not None:
                missing.append("sliding_rope_theta")
        return missing if missing else self.details(config)

    def _lacks_moe(self, config: ModelConfig, moe: MoEConfig) -> list[str]:
        missing = []
        if moe.score != self.score:
            missing.append(f"score {moe.score} (it has {self.score})")
        if moe.normalize_gates not in self.gates and moe.top_k > 1:
            missing.append(f"normalize_gates {str(moe.normalize_gates).lower()}")
        if moe.top_k == 1 and False not in self.gates:
            missing.append("top_k 1 (it normalises gates)")
        if moe.bias_update and not self.has_bias:
            missing.append("bias_update")
        if shared_kind(moe) not in self.shared:
            missing.append(
                {"none": "no n_shared_experts", "plain": "n_shared_experts", "gated": "shared_gate"}[shared_kind(moe)]
            )
        elif self.whole_shared and moe.d_shared % moe.d_expert:
            missing.append(f"a d_shared that is no multiple of d_expert ({moe.d_expert})")
        dense = config.n_layers - config.n_moe_layers
        if self.dense_layers == "none" and dense:
            missing.append("n_dense_layers" if config.n_dense_layers else "moe_every")
        if self.dense_layers == "first" and dense != config.n_dense_layers:
            missing.append("moe_every")
        if self.score == "sigmoid" and moe.n_experts < 2:
            missing.append("n_experts 1")
        return missing


def exported_options(config: ModelConfig) -> dict[str, str]:
    """The options of an architecture that an export must have a place for, with the words for them.

    Multi-token prediction is left out of every export: inference does not use it.
    """
    found = {name: words for name, words in options_of(config).items() if name != "mtp_layers"}
    if config.moe is not None:
        found |= {name: words for name, words in MOE_OPTIONS.items() if getattr(config.moe, name)}
    return found


def shared_kind(moe: MoEConfig) -> Shared:
    """Which kind of shared experts a MoE layer has."""
    if not moe.n_shared_experts:
        return "none"
    return "gated" if moe.shared_gate else "plain"
