"""The classes of transformers that an architecture can become, each with what it allows, and the choice among them.

What a class computes was read in transformers 5.23 and is held by tests that compare logits.
"""

from moelab.architecture import ModelConfig
from moelab.architecture.attention import AttentionBias
from moelab.architecture.config import GATED
from moelab.errors import InputError
from moelab.export import details, settings
from moelab.export.family import Family, exported_options


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
    known = {name for family in FAMILIES for name in family.options}
    for name, words in exported_options(config).items():
        if name not in known:
            raise InputError(f"{name}: no exportable class has {words}")
    if config.activation not in GATED:
        raise InputError(f"activation: no exportable class has feed-forwards with {config.activation} and two matrices")
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


_W = ("w1", "w3", "w2")
"""Mixtral's names of gate, up and down projection."""

_ANY = ("none", "head", "full", "l2")
"""Latent attention has norms of its latents and none of queries and keys."""
_FULL: tuple[AttentionBias, ...] = (False, True)
"""No attention biases, or on all four projections."""
_QKV: tuple[AttentionBias, ...] = (False, "qkv")
"""No attention biases, or on queries, keys and values alone."""

FAMILIES = (
    Family(
        name="Llama", model_type="llama", class_name="LlamaForCausalLM", moe=False, qk_norm=("none",),
        attention_bias=_FULL, divided_width=True, options=("rope_scaling",), settings=settings.llama,
    ),
    Family(
        name="Qwen3", model_type="qwen3", class_name="Qwen3ForCausalLM", moe=False, qk_norm=("head",),
        attention_bias=_FULL, options=("rope_scaling", "sliding_window"), windows="pattern", settings=settings.qwen3,
    ),
    Family(
        name="Mistral", model_type="mistral", class_name="MistralForCausalLM", moe=False, qk_norm=("none",),
        options=("rope_scaling", "sliding_window"), settings=settings.mistral,
    ),
    Family(
        name="Qwen2", model_type="qwen2", class_name="Qwen2ForCausalLM", moe=False, qk_norm=("none",),
        attention_bias=("qkv",), options=("rope_scaling", "sliding_window"), windows="pattern",
        settings=settings.qwen2,
    ),
    Family(
        name="Gemma 2", model_type="gemma2", class_name="Gemma2ForCausalLM", moe=False, qk_norm=("none",),
        attention_bias=_FULL, divided_width=True, windows="pattern", required=details.GEMMA, details=details.gemma,
        options=(*details.GEMMA, "sliding_window", "attention_scale", "attention_softcap", "logit_softcap"),
        settings=settings.gemma2,
    ),
    Family(
        name="Gemma 3", model_type="gemma3_text", class_name="Gemma3ForCausalLM", moe=False, qk_norm=("head",),
        attention_bias=_FULL, divided_width=True, windows="pattern", required=details.GEMMA, details=details.gemma,
        options=(
            *details.GEMMA, "sliding_window", "sliding_rope_theta", "rope_scaling", "attention_scale", "logit_softcap",
        ),
        settings=settings.gemma3,
    ),
    Family(
        name="Mixtral", model_type="mixtral", class_name="MixtralForCausalLM", qk_norm=("none",), gates=(True,),
        options=("rope_scaling", "sliding_window"), moe_name="block_sparse_moe", expert_names=_W,
        settings=settings.mixtral,
    ),
    Family(
        name="Qwen3-MoE", model_type="qwen3_moe", class_name="Qwen3MoeForCausalLM", qk_norm=("head",),
        attention_bias=_FULL, dense_layers="any", options=("rope_scaling", "sliding_window"),
        settings=settings.qwen3_moe,
    ),
    Family(
        name="OLMoE", model_type="olmoe", class_name="OlmoeForCausalLM", qk_norm=("full",), attention_bias=_FULL,
        whole_heads=True, options=("rope_scaling", "clip_qkv"), settings=settings.olmoe,
    ),
    Family(
        name="gpt-oss", model_type="gpt_oss", class_name="GptOssForCausalLM", qk_norm=("none",),
        attention_bias=_FULL, gates=(True,), required=details.GPT_OSS, details=details.gpt_oss, stacked=True,
        options=(*details.GPT_OSS, "rope_scaling", "sliding_window"), windows="pattern", settings=settings.gpt_oss,
    ),
    Family(
        name="ERNIE-4.5-MoE", model_type="ernie4_5_moe", class_name="Ernie4_5_MoeForCausalLM", qk_norm=("none",),
        gates=(True,), shared=("none", "plain"), whole_shared=True, dense_layers="first", has_bias=True,
        interleaved=True, bias_name="moe_statics.e_score_correction_bias", settings=settings.ernie,
    ),
    Family(
        name="Qwen2-MoE", model_type="qwen2_moe", class_name="Qwen2MoeForCausalLM", qk_norm=("none",),
        attention_bias=_QKV, options=("rope_scaling", "sliding_window"), windows="pattern",
        shared=("plain", "gated"), dense_layers="any", ungated_as_gate=True, shared_name="shared_expert",
        settings=settings.qwen2_moe,
    ),
    Family(
        name="DeepSeek-V2", model_type="deepseek_v2", class_name="DeepseekV2ForCausalLM", qk_norm=_ANY,
        attention_bias=_FULL, options=("mla", "rope_scaling", "rope_interleaved", "n_group"), required=("mla",),
        details=details.deepseek_v2, gates=(False,), shared=("none", "plain"), whole_shared=True,
        dense_layers="first", scales=True, divided_width=True, settings=settings.deepseek_v2,
    ),
    Family(
        name="DeepSeek-V3", model_type="deepseek_v3", class_name="DeepseekV3ForCausalLM", qk_norm=_ANY,
        attention_bias=_FULL, options=("mla", "rope_scaling", "rope_interleaved", "n_group"), required=("mla",),
        details=details.deepseek_v3, score="sigmoid", shared=("none", "plain"), whole_shared=True,
        dense_layers="first", has_bias=True, scales=True, settings=settings.deepseek_v3,
    ),
    Family(
        name="GLM-4-MoE", model_type="glm4_moe", class_name="Glm4MoeForCausalLM", qk_norm=("none", "head"),
        attention_bias=_QKV, options=("rope_scaling", "rotary_dim", "n_group"), details=details.glm,
        score="sigmoid", shared=("none", "plain"), whole_shared=True, dense_layers="first", has_bias=True,
        scales=True, settings=settings.glm,
    ),
    Family(
        name="dots.llm1", model_type="dots1", class_name="Dots1ForCausalLM", qk_norm=("head",), attention_bias=_FULL,
        options=("rope_scaling", "sliding_window", "n_group"), windows="pattern", details=details.groups,
        score="sigmoid", shared=("none", "plain"), whole_shared=True, dense_layers="first", has_bias=True,
        scales=True, settings=settings.dots,
    ),
    Family(
        name="MiniMax-M2", model_type="minimax_m2", class_name="MiniMaxM2ForCausalLM", qk_norm=("full",),
        options=("rope_scaling", "rotary_dim"), details=details.partial_rotary,
        score="sigmoid", gates=(True,), has_bias=True, moe_name="block_sparse_moe", expert_names=_W,
        bias_name="e_score_correction_bias", settings=settings.minimax,
    ),
)  # fmt: skip
"""In the order of the choice: widely served classes first."""
