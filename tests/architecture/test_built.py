"""Counted equals built: parameters by `numel`, FLOPs by PyTorch's own counter on the reference dispatch."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moelab.architecture import ModelConfig, count_flops, count_parameters, load_preset
from moelab.model import LanguageModel, MoELayer, build_model

BASE = {"vocab_size": 40, "d_model": 16, "n_layers": 2, "n_heads": 4}
MOE = {"n_experts": 6, "top_k": 2, "d_expert": 8}
MLA = {"kv_lora_rank": 5, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 3}
EVEN = {"n_experts": 4, "top_k": 2, "d_expert": 8}
ZOO: dict[str, dict[str, Any]] = {
    "dense": {"d_ff": 24},
    "relu, untied": {"d_ff": 24, "activation": "relu", "tie_embeddings": False},
    "gelu, one kv head": {"d_ff": 24, "activation": "gelu", "n_kv_heads": 1, "qk_norm": "full"},
    "wide heads, biases": {"d_ff": 24, "head_dim": 8, "n_kv_heads": 2, "attention_bias": True, "qk_norm": "none"},
    "moe": {"moe": MOE},
    "moe, shared": {"moe": {**MOE, "n_shared_experts": 2, "d_shared": 12}},
    "moe, first dense": {"n_layers": 3, "moe": MOE, "n_dense_layers": 1, "d_ff": 20},
    "moe, every second": {"n_layers": 3, "moe": MOE, "moe_every": 2, "d_ff": 20},
    "moe, plain experts, top-1": {"moe": {**MOE, "top_k": 1}, "activation": "relu"},
    "expert choice": {"moe": {**EVEN, "router": "expert_choice"}},
    "expert choice, sequence": {"moe": {**EVEN, "router": "expert_choice", "grouping": "sequence", "group_size": 10}},
    "hash": {"moe": {**MOE, "router": "hash"}},
    "word": {"moe": {**MOE, "router": "word"}},
    "random": {"moe": {**MOE, "router": "random"}},
    "soft": {"moe": {**EVEN, "router": "soft", "grouping": "sequence", "group_size": 10}},
    "mixture of tokens": {"moe": {**EVEN, "router": "mixture_of_tokens", "group_size": 2}},
    "mixture, options": {
        "moe": {
            **EVEN,
            "router": "mixture_of_tokens",
            "group_size": 2,
            "learned_temperature": True,
            "separate_emit": True,
        }
    },
    "mixture, hard": {"moe": {**EVEN, "router": "mixture_of_tokens", "group_size": 2, "mixing": "hard"}},
    "capacity, bias": {"moe": {**MOE, "capacity_factor": 1.0, "bias_update": 0.01}},
    "gated shared, norm": {
        "moe": {**MOE, "n_shared_experts": 1, "d_shared": 6, "shared_gate": True, "output_norm": True}
    },
    "moe, sigmoid": {"moe": {**MOE, "score": "sigmoid"}},
    "moe, sigmoid scores that sum to 1": {"moe": {**MOE, "score": "sigmoid", "normalize_scores": True}},
    "moe, second half": {"n_layers": 3, "moe": MOE, "n_dense_layers": 2, "d_ff": 20},
    "moe, first dense, then every second": {
        "n_layers": 3,
        "moe": MOE,
        "n_dense_layers": 1,
        "moe_every": 2,
        "d_ff": 20,
    },
    "hash table": {"moe": {**MOE, "router": "hash", "routing_vocab": 9}},
    "words": {"moe": {**MOE, "router": "word", "routing_vocab": 9}},
    "windows, own heads, sinks": {
        "n_layers": 3,
        "d_ff": 24,
        "sliding_window": 10,
        "sliding_pattern": ["window", "full"],
        "sliding_n_kv_heads": 2,
        "attention_sinks": True,
        "attention_bias": "qkv",
    },
    "chunks, no positions": {
        "n_layers": 3,
        "d_ff": 24,
        "sliding_window": 5,
        "sliding_pattern": ["chunk", "full"],
        "rope_pattern": ["rope", "none"],
        "qk_norm": "l2",
    },
    "latent": {"d_ff": 24, "mla": MLA, "attention_bias": "qkv"},
    "latent, query rank, moe": {"moe": MOE, "mla": {**MLA, "q_lora_rank": 7}, "attention_bias": True},
    "capped, gated by head": {"d_ff": 24, "attention_softcap": 3.0, "attention_gate": "head", "head_bias": True},
    "gated by element, norms on both sides": {
        "d_ff": 24,
        "attention_gate": "element",
        "norm": "rms_plus_one",
        "norm_position": "both",
        "activation": "geglu",
    },
    "layer norms behind": {"d_ff": 24, "norm": "layer", "norm_bias": True, "norm_position": "post"},
}


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def addmm_in_place(out: torch.Size, left: torch.Size, right: torch.Size, **_: Any) -> int:
    """Torch 2.13 counts `addmm` but not `addmm_`."""
    return 2 * left[0] * left[1] * right[1]


def measured_flops(model: LanguageModel, seq_len: int, backward: bool) -> int:
    """FLOPs of 2 sequences, with balanced or unbalanced routing: the count does not depend on it."""
    config = model.config
    tokens = torch.randint(0, config.vocab_size, (2, seq_len), generator=torch.Generator().manual_seed(0))
    in_place = {torch.ops.aten.addmm_: addmm_in_place}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        loss = model.loss(tokens, tokens).total if backward else model(tokens)
        if backward:
            loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ZOO)
def test_parameters_equal_numel(name: str) -> None:
    config = ModelConfig.parse({**BASE, **ZOO[name]})
    assert count_parameters(config).params_total == parameters(build_model(config))


@pytest.mark.parametrize("name", ZOO)
def test_flops_equal_pytorch_counter(name: str) -> None:
    config = ModelConfig.parse({**BASE, **ZOO[name]})
    counted, model = count_flops(config, 10), build_model(config, seed=0, dispatch="loop")
    assert measured_flops(model, 10, backward=False) == counted.forward * 20
    assert measured_flops(model, 10, backward=True) == counted.train * 20


@pytest.mark.parametrize(
    ("placement", "layers"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"n_dense_layers": 2}, [2, 3, 4, 5]),
        ({"n_dense_layers": 3}, [3, 4, 5]),
        ({"moe_every": 2}, [1, 3, 5]),
        ({"moe_every": 3}, [2, 5]),
        ({"n_dense_layers": 1, "moe_every": 2}, [2, 4]),
    ],
    ids=str,
)
def test_where_the_moe_layers_are(placement: dict[str, int], layers: list[int]) -> None:
    config = ModelConfig.parse({**BASE, "n_layers": 6, "d_ff": 20, "moe": MOE, **placement})
    built = build_model(config).model.layers
    assert [i for i, layer in enumerate(built) if isinstance(layer.mlp, MoELayer)] == layers
    assert config.n_moe_layers == len(layers)
    assert count_parameters(config).params_total == parameters(build_model(config))


@pytest.mark.parametrize(
    "preset", ["llama3-8b", "mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "gpt-oss-120b", "deepseek-v3"]
)
def test_presets_built_without_memory(preset: str) -> None:
    config = load_preset(preset)
    with torch.device("meta"):
        model = LanguageModel(config)
    assert count_parameters(config).params_trained == parameters(model)


def test_behind_its_first_window_a_block_computes_twice_what_counts() -> None:
    """2 sequences of 4 blocks, of which the first is causal; two layers have windows."""
    config = ModelConfig.parse({**BASE, **ZOO["windows, own heads, sinks"], "sliding_window": 4})
    model = build_model(config, seed=0, dispatch="loop")
    extra = measured_flops(model, 16, backward=False) - count_flops(config, 16).forward * 32
    assert extra == 2 * 12 * 2 * (2 * 4 * config.n_heads * 2 * config.head_dim)


@st.composite
def attention_options(draw: st.DrawFn) -> dict[str, Any]:
    """Any of what attention and norms may have, with windows longer than the sequences of the test."""
    choices: dict[str, list[Any]] = {
        "attention_sinks": [False, True],
        "attention_softcap": [None, 4.0],
        "sliding_window": [None, 9],
        "rope_interleaved": [None, True],
        "norm": [None, "rms_plus_one", "layer"],
        "norm_position": [None, "post", "both"],
        "head_bias": [None, True],
        "logit_softcap": [None, 5.0],
        "embedding_scale": [None, 3.0],
        "mla": [None, MLA, {**MLA, "q_lora_rank": 3}],
    }
    found = {name: draw(st.sampled_from(values)) for name, values in choices.items()}
    if found["mla"] is None:
        found["attention_gate"] = draw(st.sampled_from([None, "head", "element"]))
    return found


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 3))
    value: dict[str, Any] = {
        "vocab_size": draw(st.integers(2, 50)),
        "d_model": draw(st.integers(1, 8)) * 4,
        "n_layers": draw(st.integers(1, 4)),
        "n_kv_heads": kv_heads,
        "n_heads": kv_heads * draw(st.integers(1, 3)),
        "head_dim": draw(st.integers(1, 6)) * 2,
        "d_ff": draw(st.integers(1, 30)),
        "activation": draw(st.sampled_from(["swiglu", "relu", "gelu"])),
        "qk_norm": draw(st.sampled_from(["none", "head", "full"])),
        "tie_embeddings": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
    }
    value |= draw(attention_options())
    if draw(st.booleans()):
        top_k = draw(st.integers(1, 4))
        shared = draw(st.integers(0, 2))
        value["n_dense_layers"] = draw(st.integers(0, value["n_layers"] - 1))
        value["moe"] = {
            "top_k": top_k,
            "n_experts": top_k + draw(st.integers(0, 4)),
            "d_expert": draw(st.integers(1, 12)),
            "n_shared_experts": shared,
            "d_shared": shared * draw(st.integers(1, 6)),
            "normalize_gates": top_k > 1 and draw(st.booleans()),
        }
    return ModelConfig.parse(value)


@given(configs(), st.integers(1, 9))
def test_any_architecture_is_counted_as_built(config: ModelConfig, seq_len: int) -> None:
    model = build_model(config, seed=0, dispatch="loop")
    assert count_parameters(config).params_total == parameters(model)
    assert measured_flops(model, seq_len, backward=True) == count_flops(config, seq_len).train * 2 * seq_len
