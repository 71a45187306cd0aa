"""The classes of transformers that an architecture can become, each with what it allows, and the choice among them.

What a class computes was read in transformers 5.23 and is held by tests that compare logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from moelab.architecture import ModelConfig, MoEConfig
from moelab.architecture.buildable import options_of
from moelab.errors import InputError
from moelab.export import settings

Shared = Literal["none", "plain", "gated"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One class of transformers: the architectures it represents exactly, and its names for settings and tensors.

    `dense_layers` are those of a MoE model that may be dense: `none`, the `first` ones, or `any`. `gates` lists the
    values of normalize_gates, `whole_shared` holds shared experts to whole multiples of d_expert, `whole_heads` the
    heads to d_model. `scales` classes multiply gates by routed_scaling, others get it folded into the experts.
    `has_bias` classes have a balancing bias (zeros where none was trained). `ungated_as_gate` classes have no shared
    experts without a gate: a gate of zeros, which is 1/2, and a doubled down projection are the same function.
    `interleaved` classes rotate neighbouring pairs: q and k are reordered.
    """

    name: str
    model_type: str
    class_name: str
    moe: bool = True
    qk_norm: tuple[str, ...]
    attention_bias: bool = False
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
        if config.attention_bias and not self.attention_bias:
            missing.append("attention_bias")
        if self.whole_heads and config.n_heads * config.head_dim != config.d_model:
            missing.append(f"n_heads x head_dim other than d_model ({config.d_model})")
        if self.divided_width and config.d_model % config.n_heads:
            missing.append("a d_model that is no multiple of n_heads")
        return missing if config.moe is None else missing + self._lacks_moe(config, config.moe)

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
        missing += [name for name in _OWN_OPTIONS if getattr(moe, name)]
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


def shared_kind(moe: MoEConfig) -> Shared:
    """Which kind of shared experts a MoE layer has."""
    if not moe.n_shared_experts:
        return "none"
    return "gated" if moe.shared_gate else "plain"


def choose_family(config: ModelConfig) -> Family:
    """The first class that represents the architecture exactly. Raises InputError naming the field that none has."""
    refuse_unknown(config)
    candidates = [family for family in FAMILIES if family.moe == (config.moe is not None)]
    lacking = [(family.lacks(config), family) for family in candidates]
    for missing, family in lacking:
        if not missing:
            return family
    least = min(len(missing) for missing, _ in lacking)
    nearest = [f"{family.name} lacks {', '.join(missing)}" for missing, family in lacking if len(missing) == least]
    raise InputError(f"model: no class of transformers represents it exactly: {'; '.join(nearest)}")


def refuse_unknown(config: ModelConfig) -> None:
    """Raises InputError for what no class has: other routers, feed-forwards of two matrices, output norms."""
    moe = config.moe
    if config.unbuildable:
        raise InputError(f"model: moelab counts but cannot build or export {config.unbuildable}")
    for name, words in options_of(config).items():
        raise InputError(f"{name}: no exportable class has {words}")
    if config.activation != "swiglu":
        raise InputError(
            f"activation: no exportable class has feed-forwards with {config.activation} and two matrices; only swiglu"
        )
    if moe is None:
        return
    if moe.traits.not_exported:
        raise InputError(f"router: {moe.router} exports to no known class ({moe.traits.not_exported})")
    if moe.output_norm:
        raise InputError("output_norm: no exportable class has a LayerNorm on the output of its MoE layers")
    if moe.normalize_scores:
        raise InputError(
            "normalize_scores: no exportable class normalises scores over all experts; normalize_gates does export"
        )


_OWN_OPTIONS = ("router_bias", "expert_bias", "d_latent", "n_group", "hash_layers", "input_gates")
"""Options of a MoE layer that a class does not have unless it lists them."""
_W = ("w1", "w3", "w2")
"""Mixtral's names of gate, up and down projection."""

FAMILIES = (
    Family(
        name="Llama", model_type="llama", class_name="LlamaForCausalLM", moe=False, qk_norm=("none",),
        attention_bias=True, divided_width=True, settings=settings.llama,
    ),
    Family(
        name="Qwen3", model_type="qwen3", class_name="Qwen3ForCausalLM", moe=False, qk_norm=("head",),
        attention_bias=True, settings=settings.qwen3,
    ),
    Family(
        name="Mixtral", model_type="mixtral", class_name="MixtralForCausalLM", qk_norm=("none",), gates=(True,),
        moe_name="block_sparse_moe", expert_names=_W, settings=settings.mixtral,
    ),
    Family(
        name="Qwen3-MoE", model_type="qwen3_moe", class_name="Qwen3MoeForCausalLM", qk_norm=("head",),
        attention_bias=True, dense_layers="any", settings=settings.qwen3_moe,
    ),
    Family(
        name="OLMoE", model_type="olmoe", class_name="OlmoeForCausalLM", qk_norm=("full",), attention_bias=True,
        whole_heads=True, settings=settings.olmoe,
    ),
    Family(
        name="ERNIE-4.5-MoE", model_type="ernie4_5_moe", class_name="Ernie4_5_MoeForCausalLM", qk_norm=("none",),
        gates=(True,), shared=("none", "plain"), whole_shared=True, dense_layers="first", has_bias=True,
        interleaved=True, bias_name="moe_statics.e_score_correction_bias", settings=settings.ernie,
    ),
    Family(
        name="Qwen2-MoE", model_type="qwen2_moe", class_name="Qwen2MoeForCausalLM", qk_norm=("none",),
        shared=("plain", "gated"), dense_layers="any", ungated_as_gate=True, shared_name="shared_expert",
        settings=settings.qwen2_moe,
    ),
    Family(
        name="GLM-4-MoE", model_type="glm4_moe", class_name="Glm4MoeForCausalLM", qk_norm=("none", "head"),
        score="sigmoid", shared=("none", "plain"), whole_shared=True, dense_layers="first", has_bias=True,
        scales=True, settings=settings.glm,
    ),
    Family(
        name="dots.llm1", model_type="dots1", class_name="Dots1ForCausalLM", qk_norm=("head",), attention_bias=True,
        score="sigmoid", shared=("none", "plain"), whole_shared=True, dense_layers="first", has_bias=True,
        scales=True, settings=settings.dots,
    ),
    Family(
        name="MiniMax-M2", model_type="minimax_m2", class_name="MiniMaxM2ForCausalLM", qk_norm=("full",),
        score="sigmoid", gates=(True,), has_bias=True, moe_name="block_sparse_moe", expert_names=_W,
        bias_name="e_score_correction_bias", settings=settings.minimax,
    ),
)  # fmt: skip
"""In the order of the choice: widely served classes first."""
