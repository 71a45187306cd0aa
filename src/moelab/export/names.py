"""From the tensors of a canonical model to those of a class of transformers, one to one, experts one by one."""

from collections.abc import Callable

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import MoelabError
from moelab.export.family import Family


def hugging_face_tensors(state: dict[str, Tensor], config: ModelConfig, family: Family) -> dict[str, Tensor]:
    """The checkpoint's tensors by name, from a canonical model's state. Raises MoelabError where one is left over."""
    left = dict(state)
    tensors: dict[str, Tensor] = {}
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        if name in left:
            tensors[name] = left.pop(name)
    for layer in range(config.n_layers):
        prefix = f"model.layers.{layer}."
        for name in [
            name for name in left if name.startswith((prefix + "self_attn.", prefix + "input_", prefix + "p"))
        ]:
            tensors[name] = _attention(name, left.pop(name), config, family)
        if config.is_moe_layer(layer):
            tensors |= _moe(left, prefix, family)
        else:
            tensors |= _feed_forward(left, prefix + "mlp.", prefix + "mlp.")
    if left:
        raise MoelabError(f"export: {family.name} has no place for {', '.join(sorted(left))}")
    return tensors


def decides(name: str) -> bool:
    """Whether an exported tensor is a router's, which stays in fp32 in the file: small differences decide there."""
    return name.endswith(
        (
            "mlp.gate.weight",
            "mlp.router.weight",
            "mlp.router.bias",
            "block_sparse_moe.gate.weight",
            "e_score_correction_bias",
        )
    )


def _attention(name: str, tensor: Tensor, config: ModelConfig, family: Family) -> Tensor:
    """q and k in the order of pairs that the class rotates; everything else as it is."""
    if family.model_type == "deepseek_v2" and not config.rope_interleaved:
        return interleave_latent(name, tensor, config)
    if family.interleaved and (".q_proj." in name or ".k_proj." in name):
        return interleave(tensor, config.head_dim)
    return tensor


def interleave_latent(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """Latent attention's rotated rows of queries, and of the key that heads share, in neighbouring pairs."""
    return _turned(name, tensor, config, interleave)


def uninterleave_latent(name: str, tensor: Tensor, config: ModelConfig) -> Tensor:
    """The way back from `interleave_latent`."""
    return _turned(name, tensor, config, uninterleave)


def _turned(name: str, tensor: Tensor, config: ModelConfig, reorder: Callable[[Tensor, int], Tensor]) -> Tensor:
    assert config.mla is not None
    turned, query = config.mla.qk_rope_head_dim, f".{_query(config)}."
    if query in name:
        heads = tensor.unflatten(0, (config.n_heads, -1))
        rows = [reorder(head, turned) for head in heads[:, -turned:]]
        return torch.cat((heads[:, :-turned], torch.stack(rows)), 1).flatten(0, 1)
    if ".kv_a_proj_with_mqa." in name:
        return torch.cat((tensor[:-turned], reorder(tensor[-turned:], turned)))
    return tensor


def _query(config: ModelConfig) -> str:
    """The projection that makes the heads' queries."""
    return "q_b_proj" if config.mla is not None and config.mla.q_lora_rank else "q_proj"


def interleave(rows: Tensor, head_dim: int) -> Tensor:
    """Rows (H A, ...) of which (i, i + A/2) form a rotated pair, so that (2 i, 2 i + 1) do."""
    heads = rows.unflatten(0, (-1, 2, head_dim // 2))
    return heads.transpose(1, 2).flatten(0, 2)


def uninterleave(rows: Tensor, head_dim: int) -> Tensor:
    """The way back from `interleave`."""
    heads = rows.unflatten(0, (-1, head_dim // 2, 2))
    return heads.transpose(1, 2).flatten(0, 2)


def _feed_forward(left: dict[str, Tensor], ours: str, theirs: str) -> dict[str, Tensor]:
    gate, up = left.pop(f"{ours}gate_up_proj.weight").chunk(2)
    down = left.pop(f"{ours}down_proj.weight")
    return {f"{theirs}gate_proj.weight": gate, f"{theirs}up_proj.weight": up, f"{theirs}down_proj.weight": down}


def _moe(left: dict[str, Tensor], prefix: str, family: Family) -> dict[str, Tensor]:
    ours, theirs = prefix + "mlp.", f"{prefix}{family.moe_name}."
    if family.stacked:
        return _stacked(left, ours)
    tensors = {f"{theirs}gate.weight": left.pop(f"{ours}router.weight")}
    if family.has_bias:
        bias = left.pop(f"{ours}router.balance_bias")
        tensors[theirs + family.bias_name] = bias[None] if "moe_statics" in family.bias_name else bias
    first, down = left.pop(f"{ours}experts.gate_up_proj"), left.pop(f"{ours}experts.down_proj")
    for expert in range(first.shape[0]):
        parts = (*first[expert].chunk(2), down[expert])
        for name, part in zip(family.expert_names, parts, strict=True):
            tensors[f"{theirs}experts.{expert}.{name}.weight"] = part
    shared = f"{theirs}{family.shared_name}."
    if f"{ours}shared_experts.down_proj.weight" in left:
        tensors |= _feed_forward(left, f"{ours}shared_experts.", shared)
    elif family.whole_shared and not family.interleaved:
        # GLM-4-MoE and dots.llm1 build shared experts of width 0 where there are none, and look for their weights.
        none = tensors[f"{theirs}gate.weight"].new_empty(0, first.shape[2])
        tensors |= {f"{shared}gate_proj.weight": none, f"{shared}up_proj.weight": none.clone()}
        tensors[f"{shared}down_proj.weight"] = torch.empty(first.shape[2], 0)
    if f"{ours}shared_router.weight" in left:
        tensors[f"{theirs}shared_expert_gate.weight"] = left.pop(f"{ours}shared_router.weight")
    return tensors


def _stacked(left: dict[str, Tensor], ours: str) -> dict[str, Tensor]:
    """gpt-oss's experts: matrices transposed, gate's and up's columns in turn; the router under its own name."""
    tensors = {f"{ours}router.{part}": left.pop(f"{ours}router.{part}") for part in ("weight", "bias")}
    experts = f"{ours}experts."
    for name in ("gate_up_proj", "gate_up_proj_bias"):
        gate, up = left.pop(experts + name).chunk(2, 1)
        tensors[experts + name] = torch.stack((gate, up), 2).flatten(1, 2)
    tensors[f"{experts}gate_up_proj"] = tensors[f"{experts}gate_up_proj"].mT
    tensors[f"{experts}down_proj"] = left.pop(f"{experts}down_proj").mT
    tensors[f"{experts}down_proj_bias"] = left.pop(f"{experts}down_proj_bias")
    return tensors
