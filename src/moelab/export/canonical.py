"""The same function with the parts that a class has: a model whose tensors map one to one to the exported ones.

Multi-token prediction is left out, scalings are folded into the experts, ungated shared experts become gated ones where
a class knows no others, a bias of zeros stands where a class has one and none was trained, capacity is lifted, weights
are rounded to the exported dtype.
"""

from typing import Any

import torch
from torch import Tensor

from moelab.errors import InputError, MoelabError
from moelab.export.family import Family, shared_kind
from moelab.model import LanguageModel, build_model

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
"""Names of the dtypes that weights are written in. Routers and their biases stay in fp32 whatever the rest is."""
_STEP = 1e-3
"""Stands for the step of a balancing bias that no longer moves."""


def check_dtype(name: str) -> torch.dtype:
    """The dtype of this name. Raises InputError naming the known ones."""
    if name not in DTYPES:
        raise InputError(f"--dtype: expected one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


@torch.no_grad()
def canonical(model: LanguageModel, family: Family, dtype: str = "fp32") -> LanguageModel:
    """A model of its own on the CPU in fp32 that computes what `model` does leak-free, in the form `family` has.

    Raises MoelabError where a weight is not finite, or not in `dtype`.
    """
    config = model.config if model.config.mtp_layers is None else model.config.replace(mtp_layers=None)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("mtp.")}
    state = {name: tensor.detach().cpu().float() for name, tensor in weights.items()}
    if config.moe is not None:
        moe: dict[str, Any] = {**config.moe.to_dict(), "capacity_factor": None, "capacity_drop": None}
        if config.moe.n_group is not None:
            moe["group_score"] = config.moe.scores_groups_by
        if not family.scales and config.moe.routed_scaling != 1:
            moe["routed_scaling"] = 1.0
            _scale(state, "mlp.experts.down_proj", config.moe.routed_scaling)
            _scale(state, "mlp.experts.down_proj_bias", config.moe.routed_scaling)
        if family.ungated_as_gate and shared_kind(config.moe) == "plain":
            moe["shared_gate"] = True
            _scale(state, "mlp.shared_experts.down_proj.weight", 2.0)
            _add(state, "mlp.shared_router.weight", torch.zeros(1, config.d_model))
        if family.has_bias and not config.moe.bias_update:
            moe["bias_update"] = _STEP
            _add(state, "mlp.router.balance_bias", torch.zeros(config.moe.n_experts))
        config = config.replace(moe=moe)
    for name, tensor in state.items():
        state[name] = _rounded(name, tensor, DTYPES[dtype])
    result = build_model(config, dispatch="loop" if config.moe else "auto")
    result.load_state_dict(state)
    return result.eval()


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = tensor if ".mlp.router." in name else tensor.to(dtype).float()
    if not bool(rounded.isfinite().all()):
        reason = "is not finite" if not bool(tensor.isfinite().all()) else f"does not fit into {dtype}"
        raise MoelabError(f"export: the weight {name} {reason}; nothing was written")
    return rounded


def _scale(state: dict[str, Tensor], suffix: str, factor: float) -> None:
    for name in state:
        if name.endswith(suffix):
            state[name] = state[name] * factor


def _add(state: dict[str, Tensor], suffix: str, value: Tensor) -> None:
    """A new tensor in every MoE layer."""
    layers = [name.removesuffix("mlp.router.weight") for name in state if name.endswith("mlp.router.weight")]
    state |= {layer + suffix: value.clone() for layer in layers}
