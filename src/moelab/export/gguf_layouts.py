"""Tensors that llama.cpp's graphs cut or stack otherwise than the classes of transformers, there and back.

E experts of width F, D width; H heads; N, P, V sizes of a head's key without positions, of the rotated key and of its
value, R the rank of the latent.
"""

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.export.names import interleave_latent, uninterleave_latent

Tensors = dict[str, Tensor]


def pack_latent(tensors: Tensors, config: ModelConfig, permutes: bool) -> Tensors:
    """kv_b_proj (H (N + V), R) as k_b_proj (H, R, N) and v_b_proj (H, V, R), as latent attention decodes; rotated rows
    in neighbouring pairs."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        if permutes and not config.rope_interleaved and ".self_attn." in name:
            tensor = interleave_latent(name, tensor, config)
        if name.endswith("kv_b_proj.weight"):
            keys, values = tensor.unflatten(0, (config.n_heads, -1)).split(_sizes(config), 1)
            head = name.removesuffix("kv_b_proj.weight")
            found |= {f"{head}k_b_proj.weight": keys.mT, f"{head}v_b_proj.weight": values}
        else:
            found[name] = tensor
    return found


def unpack_latent(tensors: Tensors, config: ModelConfig, permutes: bool) -> Tensors:
    """The way back from `pack_latent`."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("k_b_proj.weight"):
            head = name.removesuffix("k_b_proj.weight")
            found[f"{head}kv_b_proj.weight"] = torch.cat((tensor.mT, tensors[f"{head}v_b_proj.weight"]), 1).flatten(
                0, 1
            )
        elif not name.endswith("v_b_proj.weight"):
            turns = permutes and not config.rope_interleaved and ".self_attn." in name
            found[name] = uninterleave_latent(name, tensor, config) if turns else tensor
    return found


def _sizes(config: ModelConfig) -> list[int]:
    assert config.mla is not None
    return [config.mla.qk_nope_head_dim, config.mla.v_head_dim]


def pack_gpt_oss(tensors: Tensors, config: ModelConfig, permutes: bool) -> Tensors:
    """Experts' matrices as (E, rows, columns), gate and up apart; sinks under a name with a suffix."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith(("experts.gate_up_proj", "experts.gate_up_proj_bias")):
            bias = name.endswith("_bias")
            rows = tensor if bias else tensor.mT
            head, kind = name.split("gate_up_proj")[0], "bias" if bias else "weight"
            found |= {f"{head}gate_proj.{kind}": rows[:, ::2], f"{head}up_proj.{kind}": rows[:, 1::2]}
        elif name.endswith("experts.down_proj"):
            found[f"{name}.weight"] = tensor.mT
        elif name.endswith("experts.down_proj_bias"):
            found[f"{name.removesuffix('_bias')}.bias"] = tensor
        else:
            found[f"{name}.weight" if name.endswith("sinks") else name] = tensor
    return found


def unpack_gpt_oss(tensors: Tensors, config: ModelConfig, permutes: bool) -> Tensors:
    """The way back from `pack_gpt_oss`."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        head, mark, rest = name.partition("experts.")
        if not mark:
            found[name.removesuffix(".weight") if name.endswith("sinks.weight") else name] = tensor
        elif rest.startswith("gate_proj"):
            kind = rest.split(".")[1]
            both = torch.stack((tensor, tensors[f"{head}experts.up_proj.{kind}"]), 2).flatten(1, 2)
            found[f"{head}experts.gate_up_proj{'_bias' if kind == 'bias' else ''}"] = (
                both if kind == "bias" else both.mT
            )
        elif rest.startswith("down_proj"):
            weight = rest.endswith("weight")
            found[f"{head}experts.down_proj{'' if weight else '_bias'}"] = tensor.mT if weight else tensor
    return found
