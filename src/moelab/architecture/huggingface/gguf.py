"""From the header of a GGUF file to the architecture: its metadata as the settings of the class it was made from.

Rotary frequencies scaled as in Llama 3 are a tensor in GGUF, so they are read as plain ones.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import count_parameters
from moelab.architecture.huggingface.gguf_header import Header, read_header
from moelab.architecture.huggingface.read import read_huggingface
from moelab.errors import InputError
from moelab.printable import short

GENERAL = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
    "sliding_window": "attention.sliding_window",
}
"""Settings of transformers, with the keys of GGUF behind the name of the graph."""

_DEEPSEEK = {
    "n_routed_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "routed_scaling_factor": "expert_weights_scale",
    "norm_topk_prob": "expert_weights_norm",
    "n_group": "expert_group_count",
    "topk_group": "expert_group_used_count",
    "num_nextn_predict_layers": "nextn_predict_layers",
}
_LATENT = {
    **_DEEPSEEK,
    "q_lora_rank": "attention.q_lora_rank",
    "kv_lora_rank": "attention.kv_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
}
_FLAT = {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}
_QWEN = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}

GRAPHS: dict[str, tuple[str, Mapping[str, str], Mapping[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "qwen2": ("qwen2", {}, {"use_sliding_window": False}),
    "qwen3": ("qwen3", {}, {"use_sliding_window": False}),
    "olmo2": ("olmo2", {}, {}),
    "gemma2": (
        "gemma2",
        {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"},
        {},
    ),
    "gemma3": ("gemma3_text", {}, {}),
    "mixtral": ("mixtral", _FLAT, {}),
    "qwen2moe": (
        "qwen2_moe",
        {**_QWEN, "shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        {"norm_topk_prob": False, "use_sliding_window": False},
    ),
    "qwen3moe": ("qwen3_moe", _QWEN, {"norm_topk_prob": True, "use_sliding_window": False}),
    "olmoe": ("olmoe", {"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}, {}),
    "gpt-oss": ("gpt_oss", {**_FLAT, "intermediate_size": "expert_feed_forward_length"}, {}),
    "phimoe": ("phimoe", _FLAT, {"lm_head_bias": True, "sliding_window": None}),
    "minimax-m2": ("minimax_m2", {**_FLAT, "intermediate_size": "expert_feed_forward_length"}, {}),
    "ernie4_5-moe": (
        "ernie4_5_moe",
        {
            "moe_num_experts": "expert_count",
            "moe_k": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "moe_num_shared_experts": "expert_shared_count",
            "moe_layer_start_index": "leading_dense_block_count",
            "moe_layer_interval": "interleave_moe_layer_step",
        },
        {},
    ),
    "glm4moe": ("glm4_moe", _DEEPSEEK, {}),
    "dots1": ("dots1", _DEEPSEEK, {"sliding_window": None}),
    "deepseek": ("deepseek", {**_DEEPSEEK}, {}),
    "deepseek2": ("deepseek_v3", _LATENT, {}),
}
"""Graphs of llama.cpp, each with the class of transformers, further keys and what the graph does in one way."""

_SOFTMAX, _SIGMOID = 1, 2
"""`expert_gating_func` in llama.cpp."""
_NO_PARAMETERS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def read_gguf(path: Path) -> ModelConfig:
    """The architecture of a GGUF file, whose tensors must hold what that architecture counts.

    Raises InputError naming the file and the key, for graphs that moelab does not know and for tensors that differ.
    """
    header = read_header(path)
    name = header.metadata.get("general.architecture")
    graph = "mixtral" if name == "llama" and header.metadata.get("llama.expert_count") else name
    if not isinstance(graph, str) or graph not in GRAPHS:
        raise InputError(
            f"{path}: general.architecture: {short(name)} is not known; known: {', '.join(sorted(GRAPHS))}"
        )
    settings = _settings(header, str(name), graph)
    config = _gates(read_huggingface(settings, str(path)), header.metadata.get(f"{name}.expert_gating_func"))
    _check(config, header, path)
    return config


def _settings(header: Header, name: str, graph: str) -> dict[str, Any]:
    """The file's metadata under the keys of config.json."""
    model_type, keys, fixed = GRAPHS[graph]
    own = {key.removeprefix(f"{name}."): value for key, value in header.metadata.items() if key.startswith(f"{name}.")}
    found = {key: own[place] for key, place in {**GENERAL, **keys}.items() if place in own}
    values = {**found, **fixed, "model_type": model_type, **_from_tensors(header)}
    for key in ("num_key_value_heads", "num_attention_heads", "intermediate_size"):
        if isinstance(values.get(key), list) and len(set(values[key])) == 1:
            values[key] = values[key][0]
    if graph == "deepseek2":
        values |= _latent(own)
    elif "rope.dimension_count" in own and values.get("head_dim"):
        values["partial_rotary_factor"] = own["rope.dimension_count"] / values["head_dim"]
    if graph == "glm4moe":
        values["num_hidden_layers"] -= own.get("nextn_predict_layers", 0)
    scaling = own.get("rope.scaling.type")
    if scaling in ("linear", "yarn"):
        values["rope_scaling"] = _scaling(own, scaling)
    return values


def _from_tensors(header: Header) -> dict[str, Any]:
    """What only the tensors show: the vocabulary, a head of its own, biases and norms of queries and keys."""
    tensors = header.tensors
    embedding = tensors.get("token_embd.weight", (0, 0))
    return {
        "vocab_size": embedding[-1],
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "qkv_bias": "blk.0.attn_q.bias" in tensors,
        "use_qk_norm": "blk.0.attn_q_norm.weight" in tensors,
    }


def _latent(own: Mapping[str, Any]) -> dict[str, Any]:
    """Latent attention's sizes: newer files keep the widths of heads beside those of the latent."""
    keys = own.get("attention.key_length_mla", own.get("attention.key_length", 0))
    sigmoid = own.get("expert_gating_func") == _SIGMOID
    return {
        "model_type": "deepseek_v3" if sigmoid else "deepseek_v2",
        "num_key_value_heads": own.get("attention.head_count"),
        "q_lora_rank": own.get("attention.q_lora_rank"),
        "qk_nope_head_dim": keys - own.get("rope.dimension_count", 0),
        "v_head_dim": own.get("attention.value_length_mla", own.get("attention.value_length")),
        "n_group": own.get("expert_group_count", 1),
        "topk_group": own.get("expert_group_used_count", 1),
        "num_nextn_predict_layers": own.get("nextn_predict_layers", 0),
    }


def _scaling(own: Mapping[str, Any], kind: str) -> dict[str, Any]:
    mscale, factor = 10 * own.get("rope.scaling.yarn_log_multiplier", 0.0), own.get("rope.scaling.factor")
    betas = {f"beta_{end}": own.get(f"rope.scaling.yarn_beta_{end}") for end in ("fast", "slow")}
    given = own.get("rope.scaling.attn_factor")
    if kind == "yarn" and given not in (None, 1.0) and factor:
        betas["attention_factor"] = given * (0.1 * math.log(factor) + 1)  # llama.cpp multiplies YaRN's own factor by it
    return {
        "rope_type": kind,
        "factor": factor,
        **{name: value for name, value in betas.items() if value is not None},
        "original_max_position_embeddings": own.get("rope.scaling.original_context_length"),
        **({"mscale": mscale, "mscale_all_dim": mscale} if mscale else {}),
    }


def _gates(config: ModelConfig, gating: Any) -> ModelConfig:
    """The same with the scores that the file names, where that differs from the class's."""
    score = {_SOFTMAX: "softmax", _SIGMOID: "sigmoid"}.get(gating)
    if config.moe is None or score is None or config.moe.score in (score, "sparsemixer"):
        return config
    if config.moe.router_bias:  # gpt-oss: its softmax over the chosen is a kind of its own in llama.cpp
        return config
    return config.replace(moe={**config.moe.to_dict(), "score": score})


def _check(config: ModelConfig, header: Header, path: Path) -> None:
    """Raises InputError where the tensors hold other numbers of parameters than the architecture read."""
    if header.metadata.get("split.count", 0) > 1 or not header.tensors:
        return
    n_layers = config.n_layers
    held = sum(
        math.prod(shape)
        for name, shape in header.tensors.items()
        if name not in _NO_PARAMETERS and "exp_probs_b" not in name and _layer(name) < n_layers
    )
    counted = count_parameters(config).params_total
    if held != counted:
        raise InputError(
            f"{path}: tensors: they hold {held:,} parameters where the settings give {counted:,}: "
            "moelab cannot represent this model"
        )


def _layer(name: str) -> int:
    """The layer of a tensor; -1 for those outside of the layers. Layers beyond the last predict further tokens."""
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" and len(parts) > 1 and parts[1].isdigit() else -1
