"""llama.cpp's graphs: which of our architectures each runs exactly, and its names and layouts of tensors.

What a graph computes was read in llama.cpp's src/models; names are those of the package `gguf` for the architecture.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.architecture.attention import AttentionBias
from moelab.errors import InputError, MoelabError
from moelab.export.details import GPT_OSS, GPT_OSS_LIMIT
from moelab.export.families import FAMILIES, choose_family, refuse_unknown
from moelab.export.family import Family, exported_options
from moelab.export.gguf_layouts import pack_gpt_oss, pack_latent, unpack_gpt_oss, unpack_latent
from moelab.export.gguf_positions import unwritten_scaling
from moelab.export.names import interleave, uninterleave

Repack = Callable[[dict[str, Tensor], ModelConfig, bool], dict[str, Tensor]]
"""(tensors, config, permutes) -> tensors: another cut of the same numbers."""


LITE_LAYERS = (26, 27)
"""By these numbers of layers llama.cpp's `deepseek2` knows models without a query rank (llama_model_deepseek2)."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One of llama.cpp's graphs: `permutes` is true where it rotates neighbouring pairs of q and k and the class does
    not, `own_head` where it has no tied head; `biases` are the attention biases that it has. `options` are those of
    `exported_options` that it has. `pack` and `unpack` turn the class's tensors into the graph's and back. `refuse`
    returns `field: reason` for an architecture it cannot run."""

    name: str
    permutes: bool = False
    own_head: bool = False
    biases: AttentionBias = False
    options: tuple[str, ...] = ()
    pack: Repack = lambda tensors, config, permutes: tensors
    unpack: Repack = lambda tensors, config, permutes: tensors
    refuse: Callable[[ModelConfig], str | None] = lambda config: None


def _experts_everywhere(config: ModelConfig) -> str | None:
    return "d_ff: its graph has no dense layers" if config.n_moe_layers < config.n_layers else None


def _olmoe(config: ModelConfig) -> str | None:
    if config.n_kv_heads != config.n_heads:
        return "n_kv_heads: its graph normalises keys over the whole width"
    return _gates(config, normalised=False)


def _qwen2_moe(config: ModelConfig) -> str | None:
    if config.n_heads * config.head_dim != config.d_model:
        return "head_dim: its graph has n_heads x head_dim = d_model"
    if config.moe is not None and not config.moe.shared_gate:
        return "shared_gate: ungated shared experts become a gate of zeros, where its graph divides 0 by 0"
    return _experts_everywhere(config) or _gates(config, normalised=False)


def _gates(config: ModelConfig, *, normalised: bool) -> str | None:
    if config.moe is not None and config.moe.normalize_gates != normalised:
        return f"normalize_gates: its graph has them {'on' if normalised else 'off'} and ignores the file's setting"
    return None


def _qwen3_moe(config: ModelConfig) -> str | None:
    return _experts_everywhere(config) or _gates(config, normalised=True)


def _glm(config: ModelConfig) -> str | None:
    return None if config.moe and config.moe.n_shared_experts else "n_shared_experts: its graph needs shared experts"


def _deepseek(config: ModelConfig) -> str | None:
    if config.mla is not None and (config.mla.q_lora_rank is None) != (config.n_layers in LITE_LAYERS):
        return "mla: its graph takes queries without a latent of models of 26 or 27 layers, and of no others"
    moe = config.moe
    if moe is not None and moe.n_group is not None and moe.scores_groups_by != "top2":
        return "group_score: its graph scores groups by their two largest"
    return None if moe is None or moe.n_shared_experts else "n_shared_experts: its graph needs shared experts"


def _gpt_oss(config: ModelConfig) -> str | None:
    if config.attention_bias is not True:
        return "attention_bias: its graph has biases on all four projections"
    if config.swiglu_limit != GPT_OSS_LIMIT:
        return f"swiglu_limit: its graph clamps at {GPT_OSS_LIMIT:g} and ignores the file's setting"
    kinds = [config.layer_kind(layer) for layer in range(config.n_layers)]
    if kinds != [("window", "full")[layer % 2] for layer in range(config.n_layers)]:
        return "sliding_pattern: its graph has a window in every second layer, from the first on"
    return None


GRAPHS = {
    "llama": Graph(name="llama", permutes=True),
    "qwen3": Graph(name="qwen3"),
    "mixtral": Graph(name="llama", permutes=True),
    "olmoe": Graph(name="olmoe", own_head=True, refuse=_olmoe),
    "qwen3_moe": Graph(name="qwen3moe", refuse=_qwen3_moe),
    "qwen2_moe": Graph(name="qwen2moe", own_head=True, biases="qkv", refuse=_qwen2_moe),
    "glm4_moe": Graph(name="glm4moe", biases="qkv", options=("rotary_dim",), refuse=_glm),
    "deepseek_v2": Graph(
        name="deepseek2", own_head=True, options=("mla", "rope_interleaved"), pack=pack_latent, unpack=unpack_latent,
        refuse=_deepseek,
    ),
    "deepseek_v3": Graph(
        name="deepseek2", permutes=True, own_head=True, options=("mla", "rope_interleaved", "n_group"),
        pack=pack_latent, unpack=unpack_latent, refuse=_deepseek,
    ),
    "gpt_oss": Graph(
        name="gpt-oss", own_head=True, biases=True, options=(*GPT_OSS, "sliding_window"), pack=pack_gpt_oss,
        unpack=unpack_gpt_oss, refuse=_gpt_oss,
    ),
    "minimax_m2": Graph(name="minimax-m2", own_head=True, options=("rotary_dim",)),
    "ernie4_5_moe": Graph(name="ernie4_5-moe"),
}  # fmt: skip
"""By the model_type of the class of transformers."""


_GLM = next(family for family in FAMILIES if family.model_type == "glm4_moe")
GGUF_ONLY = (replace(_GLM, name="llama.cpp's glm4moe", class_name="", score="softmax", shared=("plain",)),)
"""What llama.cpp's graphs compute and no class of transformers does: GLM-4-MoE's with softmax scores."""


def choose_graph(config: ModelConfig) -> tuple[Family, Graph]:
    """The first class whose graph in llama.cpp runs this architecture, and the graph.

    Raises InputError naming the field that none can do.
    """
    refuse_unknown(config)
    fitting = [family for family in (*FAMILIES, *GGUF_ONLY) if _fits(family, config)]
    reasons = []
    for family in fitting:
        graph = GRAPHS.get(family.model_type)
        if graph is None:
            reasons.append(f"--to: GGUF is not written for {family.name}")
            continue
        reason = _unwritten(config, graph) or graph.refuse(config)
        if reason is None:
            return family, graph
        field, why = reason.split(": ", 1)
        reasons.append(f"{field}: llama.cpp's {graph.name} cannot run this model: {why}")
    if not reasons:
        choose_family(config)  # its refusal names what every class lacks
    raise InputError(f"{reasons[0]}; export it with --to hf")


def _unwritten(config: ModelConfig, graph: Graph) -> str | None:
    """What of the architecture is not written for this graph, as `field: reason`."""
    for name, words in exported_options(config).items():
        if name not in (*graph.options, "rope_scaling"):
            return f"{name}: {words} are not written to GGUF"
    if config.attention_bias not in (False, graph.biases):
        return "attention_bias: it is not written to GGUF"
    return unwritten_scaling(config, graph.name)


def _fits(family: Family, config: ModelConfig) -> bool:
    return family.moe == (config.moe is not None) and not family.lacks(config)


def with_own_head(tensors: dict[str, Tensor], graph: Graph) -> dict[str, Tensor]:
    """The class's tensors, with a head of its own where the graph knows no tied one."""
    if not graph.own_head or "lm_head.weight" in tensors:
        return tensors
    return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}


def packed(tensors: dict[str, Tensor], config: ModelConfig, graph: Graph) -> dict[str, Tensor]:
    """The class's tensors as the graph cuts them, under names of the class's kind."""
    return graph.pack(tensors, config, graph.permutes)


def to_gguf(tensors: dict[str, Tensor], config: ModelConfig, graph: Graph) -> dict[str, Tensor]:
    """The file's tensors by name: experts stacked, rotated pairs neighbours where the graph wants them so."""
    result: dict[str, Tensor] = {}
    tensors = packed(tensors, config, graph)
    for place, names in _places(list(tensors), config, graph).items():
        parts = [tensors[name] for name in names]
        tensor = torch.stack(parts) if _of_expert(names[0]) else parts[0]
        if graph.permutes and place in _rotated(config):
            tensor = interleave(tensor, config.head_dim)
        result[place] = tensor.flatten() if place.endswith("ffn_gate_inp_shexp.weight") else tensor
    return result


def from_gguf(found: dict[str, Tensor], names: list[str], config: ModelConfig, graph: Graph) -> dict[str, Tensor]:
    """The class's tensors out of a file's; `names` are those that `packed` gives them in the graph's cut.

    Raises MoelabError where one is missing or left over.
    """
    places = _places(names, config, graph)
    if set(places) != set(found):
        raise MoelabError(f"export: the file has other tensors than {graph.name}: {sorted(set(places) ^ set(found))}")
    result: dict[str, Tensor] = {}
    for place, own in places.items():
        tensor = found[place]
        if graph.permutes and place in _rotated(config):
            tensor = uninterleave(tensor, config.head_dim)
        if place.endswith("ffn_gate_inp_shexp.weight"):
            tensor = tensor[None]
        result |= dict(zip(own, tensor if _of_expert(own[0]) else [tensor], strict=True))
    return graph.unpack(result, config, graph.permutes)


def _of_expert(name: str) -> bool:
    """Whether a class's tensor is one expert's: all of them together make one of the file's."""
    _, mark, rest = name.partition(".experts.")
    return bool(mark) and rest.split(".")[0].isdigit()


def _rotated(config: ModelConfig) -> set[str]:
    if config.mla is not None:
        return set()
    return {f"blk.{layer}.attn_{part}.weight" for layer in range(config.n_layers) for part in "qk"}


def _places(names: list[str], config: ModelConfig, graph: Graph) -> dict[str, list[str]]:
    """Each of the file's tensors, and the class's tensors in it: one, or one per expert."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == graph.name)
    known = get_tensor_name_map(arch, config.n_layers)
    places: dict[str, list[str]] = {}
    for name in names:
        head, _, rest = name.partition(".experts.")
        plain = f"{head}.experts.{rest.split('.', 1)[1]}" if _of_expert(name) else name
        base, suffix = plain.replace("e_score_correction_bias", "e_score_correction.bias").rsplit(".", 1)
        found = known.get_name(base)
        if found is None:
            raise MoelabError(f"export: gguf knows no name for {name} in {graph.name}")
        places.setdefault(f"{found}.{suffix}", []).append(name)
    return places
