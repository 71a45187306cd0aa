"""config.json files read as architectures: known models, every key that matters, refusals that name the key."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moelab.architecture import ModelConfig, count_parameters, load_model, load_preset
from moelab.architecture.huggingface import FAMILIES, read_huggingface
from moelab.architecture.released import released_models
from moelab.errors import InputError

PUBLISHED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "published_configs.json").read_text())
"""What the config.json of each preset holds of its architecture, from its model card."""
LLAMA = {"model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
MIXTRAL = {**LLAMA, "model_type": "mixtral"}
GEMMA = {**LLAMA, "model_type": "gemma3_text", "num_hidden_layers": 7}
DEEPSEEK = {
    **LLAMA, "model_type": "deepseek_v3", "num_key_value_heads": 4, "first_k_dense_replace": 1, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 16,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_is_the_preset(name: str) -> None:
    preset, read = load_preset(name), read_huggingface(PUBLISHED[name], name)
    if preset.moe is not None and preset.moe.d_ff_reference:
        assert read.moe is not None
        read = read.replace(moe={**read.moe.to_dict(), "d_ff_reference": preset.moe.d_ff_reference})
    assert read == preset


def test_every_preset_has_its_public_facts() -> None:
    assert set(released_models()) == set(PUBLISHED) | {"grok-1"}


@pytest.mark.parametrize("name", released_models())
def test_published_figures_agree_or_say_why_not(name: str) -> None:
    released = released_models()[name]
    total, active = released.counted()
    assert released.params_total == pytest.approx(total, rel=0.015)
    if released.params_active is not None:
        assert released.params_active == pytest.approx(active, rel=0.03)
    assert released.agrees != bool(released.note)


def test_the_issues_case(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PUBLISHED["mixtral-8x22b"] | {"architectures": ["MixtralForCausalLM"]}))
    for given in (path, tmp_path):  # the file, and a folder that holds it
        assert count_parameters(load_model(given)).params_total == 140_630_071_296


def test_dots_names_its_choice_as_its_scores() -> None:
    """The config.json of dots.llm1 has `scoring_func: noaux_tc`, which llama.cpp's converter takes as sigmoid."""
    read = read_huggingface({**DEEPSEEK, "model_type": "dots1", "scoring_func": "noaux_tc"}, "config.json")
    assert read.moe is not None
    assert read.moe.score == "sigmoid"


def test_other_cases_of_attention() -> None:
    """Latent attention without a query rank, and biases on queries, keys and values alone."""
    lite = {
        "vocab_size": 102400, "d_model": 2048, "n_layers": 27, "n_heads": 16, "n_dense_layers": 1, "d_ff": 10944,
        "qk_norm": "none", "tie_embeddings": False,
        "mla": {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
        "moe": {"n_experts": 64, "top_k": 6, "d_expert": 1408, "n_shared_experts": 2, "d_shared": 2816},
    }  # fmt: skip
    assert count_parameters(ModelConfig.parse(lite)).params_total == 15_706_484_224
    qwen = {
        "vocab_size": 151936, "d_model": 1536, "n_layers": 28, "n_heads": 12, "n_kv_heads": 2, "d_ff": 8960,
        "attention_bias": "qkv", "qk_norm": "none",
    }  # fmt: skip
    assert count_parameters(ModelConfig.parse(qwen)).params_total == 1_543_714_304
    assert count_parameters(ModelConfig.parse({**qwen, "attention_bias": True})).params_total == 1_543_757_312


def test_a_multimodal_config_is_its_text_model() -> None:
    whole = {"model_type": "gemma3", "text_config": {"hidden_size": 2560, "num_hidden_layers": 34}, "vision_config": {}}
    read = read_huggingface(whole)
    assert (read.d_model, read.n_layers, read.vocab_size) == (2560, 34, 262_208)
    assert read.sliding_pattern == ("window",) * 5 + ("full",)
    assert (read.sliding_rope_theta, read.rope_theta) == (10_000, 1_000_000)
    kimi = {"model_type": "kimi_k25", "text_config": PUBLISHED["kimi-k2"]}
    assert read_huggingface(kimi) == load_preset("kimi-k2")


@pytest.mark.parametrize(
    ("given", "field", "wanted"),
    [
        ({**LLAMA, "attention_bias": True}, "attention_bias", True),
        ({**LLAMA, "head_dim": 16}, "head_dim", 16),
        ({**LLAMA, "rope_theta": 5e5}, "rope_theta", 5e5),
        ({**LLAMA, "rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}}, "rope_theta", 7e5),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "rotary_dim", 4),
        ({**LLAMA, "num_key_value_heads": None}, "n_kv_heads", 4),
        ({**LLAMA, "model_type": "mistral"}, "sliding_window", 4096),
        ({**LLAMA, "model_type": "mistral", "sliding_window": None}, "sliding_window", None),
        ({**LLAMA, "model_type": "mistral", "max_position_embeddings": 4096}, "sliding_window", None),
        ({**LLAMA, "model_type": "qwen2"}, "attention_bias", "qkv"),
        ({**LLAMA, "model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, "sliding_pattern",
         ("full", "window", "window")),
        ({**LLAMA, "model_type": "qwen3", "layer_types": ["full_attention"] * 3}, "sliding_window", None),
        ({**LLAMA, "model_type": "olmo2"}, "norm_position", "post"),
        ({**LLAMA, "model_type": "olmo3", "max_position_embeddings": 8192}, "sliding_rope_theta", 5e5),
        ({**LLAMA, "model_type": "gemma2", "num_key_value_heads": 2}, "attention_softcap", 50.0),
        (GEMMA, "sliding_pattern", ("window",) * 5 + ("full",)),
        ({**GEMMA, "sliding_window_pattern": 3}, "sliding_pattern", ("window", "window", "full")),
        ({**GEMMA, "query_pre_attn_scalar": 64}, "attention_scale", 0.125),
        ({**GEMMA, "layer_types": ["full_attention"] * 7}, "sliding_rope_theta", None),
        ({**DEEPSEEK, "num_nextn_predict_layers": 2}, "mtp_layers", 2),
        ({**DEEPSEEK, "num_nextn_predict_layers": 0}, "mtp_layers", None),
        ({**DEEPSEEK, "first_k_dense_replace": 3}, "moe", None),
    ],
    ids=str,
)  # fmt: skip
def test_a_key_is_read(given: dict[str, Any], field: str, wanted: Any) -> None:
    assert getattr(read_huggingface(given), field) == wanted


@pytest.mark.parametrize(
    ("given", "field", "wanted"),
    [
        ({**MIXTRAL, "num_experts_per_tok": 3}, "top_k", 3),
        ({**DEEPSEEK, "n_group": 1}, "n_group", None),
        (DEEPSEEK, "group_score", "top2"),
        (DEEPSEEK, "bias_update", 0.001),
        (
            {**DEEPSEEK, "model_type": "deepseek_v2", "topk_method": "greedy", "routed_scaling_factor": 1},
            "n_group",
            None,
        ),
        ({**DEEPSEEK, "model_type": "deepseek_v2", "topk_method": "group_limited_greedy"}, "group_score", "max"),
        ({**DEEPSEEK, "model_type": "glm4_moe", "n_shared_experts": 0}, "n_shared_experts", 0),
    ],
    ids=str,
)
def test_a_key_of_experts_is_read(given: dict[str, Any], field: str, wanted: Any) -> None:
    moe = read_huggingface(given).moe
    assert moe is not None
    assert getattr(moe, field) == wanted


@pytest.mark.parametrize(
    ("scaling", "wanted"),
    [
        ({"type": "linear", "factor": 4}, {"kind": "linear", "factor": 4.0}),
        ({"rope_type": "yarn", "factor": 4.0, "truncate": False},
         {"kind": "yarn", "factor": 4.0, "original_context": 2048, "truncate": False}),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4,
          "original_max_position_embeddings": 64},
         {"kind": "llama3", "factor": 8.0, "original_context": 64, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ({"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
          "original_max_position_embeddings": 512},
         {"kind": "longrope", "factor": 4.0, "original_context": 512, "short_factors": [1.0] * 4,
          "long_factors": [2.0] * 4}),
        ({"rope_type": "default"}, None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_scaled_positions(scaling: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    for key in ("rope_scaling", "rope_parameters"):
        read = read_huggingface({**LLAMA, key: scaling})
        assert (None if read.rope_scaling is None else read.rope_scaling.to_dict()) == wanted


REFUSED = [
    ({**LLAMA, "model_type": "t9"}, "model_type: 't9' is not known; known: llama, mistral"),
    ({"hidden_size": 3, "architectures": []}, "model_type: is required"),
    ({"model_type": 3}, "model_type: expected a name, got 3"),
    ({"model_type": "qwen3_next", "linear_num_key_heads": 16}, "linear_num_key_heads: moelab cannot represent linear"),
    ({"model_type": "qwen3_next"}, "model_type: moelab cannot represent linear attention in most layers"),
    ({"model_type": "mamba2", "state_size": 128}, "state_size: moelab cannot represent a state-space model"),
    ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder: moelab cannot represent an encoder"),
    ({"model_type": "deepseek_v32", "index_topk": 2048}, "index_topk: moelab cannot represent attention to a sparse"),
    ({"model_type": "deepseek_v4", "compress_ratios": [4]}, "compress_ratios: moelab cannot represent compressed"),
    ({"model_type": "jamba", "attn_layer_period": 8}, "attn_layer_period: moelab cannot represent Mamba"),
    ({**LLAMA, "model_type": "minimax_m2", "attn_type_list": [0, 0, 1]}, "attn_type_list: moelab cannot represent lin"),
    ({**LLAMA, "hidden_size": "many"}, "hidden_size: expected a positive whole number, got 'many'"),
    ({**LLAMA, "hidden_size": True}, "hidden_size: expected a positive whole number, got True"),
    ({**LLAMA, "num_hidden_layers": 0}, "num_hidden_layers: expected a positive whole number, got 0"),
    ({**LLAMA, "num_hidden_layers": 10**9}, "num_hidden_layers: must be above 0 and at most 65536"),
    ({**LLAMA, "num_hidden_layers": 2.5}, "num_hidden_layers: expected a positive whole number, got 2.5"),
    ({**LLAMA, "rms_norm_eps": float("inf")}, "rms_norm_eps: expected a positive number, got inf"),
    ({**LLAMA, "tie_word_embeddings": "no"}, "tie_word_embeddings: expected true or false, got 'no'"),
    ({**LLAMA, "hidden_act": "gelu"}, "hidden_act: expected one of silu, swish, gelu_pytorch_tanh, got 'gelu'"),
    ({**LLAMA, "num_key_value_heads": 3}, r"num_key_value_heads \(here n_kv_heads\): must divide n_heads \(4\), got 3"),
    ({**LLAMA, "mlp_bias": True}, "mlp_bias: expected false, got True"),
    ({**LLAMA, "rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "rope_scaling: rope_type: expected one of defa"),
    ({**LLAMA, "rope_scaling": 3}, "rope_scaling: expected keys and values, got 3"),
    ({**LLAMA, "rope_scaling": {"type": "linear"}}, "rope_scaling: factor: is required, a positive number"),
    ({**LLAMA, "partial_rotary_factor": 3.0}, "partial_rotary_factor: expected a share above 0 and at most 1, got 3"),
    ({**LLAMA, "model_type": "qwen3", "use_sliding_window": True, "layer_types": ["linear_attention"] * 3},
     "layer_types: moelab cannot represent 'linear_attention' layers"),
    ({**GEMMA, "layer_types": ["full_attention"]}, "layer_types: expected 7 layers, as num_hidden_layers has"),
    ({**GEMMA, "use_bidirectional_attention": True}, "use_bidirectional_attention: expected false, got True"),
    ({**MIXTRAL, "num_experts_per_tok": 9}, r"num_experts_per_tok \(here moe.top_k\): must be at most n_experts"),
    ({**DEEPSEEK, "scoring_func": "softmax"}, "scoring_func: expected sigmoid, got 'softmax'"),
    ({**DEEPSEEK, "moe_layer_freq": 2}, "moe_layer_freq: expected 1 or"),
    ({**LLAMA, "model_type": "dots1", "num_experts_per_tok": 2}, "n_routed_experts: is required, a positive whole"),
    ({**LLAMA, "model_type": "qwen3_moe", "num_key_value_heads": 2, "num_hidden_layers": 6, "mlp_only_layers": [0, 3]},
     "mlp_only_layers: moelab cannot represent these MoE layers"),
    ({**LLAMA, "model_type": "gpt_oss", "swiglu_alpha": 2.0}, "swiglu_alpha: moelab cannot represent a clamped SwiGLU"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_cannot_be_is_one_line_with_the_key(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^model/config.json: {message}") as caught:
        read_huggingface(given, "model/config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bad_value_escapes_as_another_error(family: str) -> None:
    """Every key of every family, given values of every wrong type, is an InputError or a model."""
    known = {**LLAMA, **FAMILIES[family].defaults, "model_type": family, "num_experts_per_tok": 2, "moe_top_k": 2}
    for key in known:
        for value in (None, -1, 0, 1.5, "x", [3], {"a": 1}, True, 10**30, [None] * 3):
            with suppress(InputError):
                assert read_huggingface({**known, key: value, "model_type": family}).d_model


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither config.yaml nor config.json"):
        load_model(tmp_path)
    path = tmp_path / "config.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match="must hold keys and values, not list"):
        load_model(path)
    path.write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        load_model(path)
    path.write_text(json.dumps({"vocab_size": 30, "d_model": 8, "n_layers": 1, "n_heads": 2, "d_ff": 8}))
    assert load_model(path).d_model == 8
