"""How the routed experts are run: several back ends behind one function, all held to the reference `loop`.

T tokens, D width, E experts of width F, K chosen per token, R = T K routed rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model.dispatch.grouped import dispatch_grouped, grouped_works
from moelab.model.dispatch.loop import dispatch_loop
from moelab.model.dispatch.native import dispatch_native
from moelab.model.dispatch.padded import dispatch_padded
from moelab.model.dispatch.sorted import dispatch_sorted
from moelab.model.feed_forward import Experts
from moelab.model.native import load
from moelab.model.precision import compute_dtype

Dispatch = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, str], Tensor]
"""(x_TD, first (E, 2F or F, D), down (E, D, F), chosen_TK, gates_TK, activation) -> y_TD"""

DISPATCHES: dict[str, Dispatch] = {
    "loop": dispatch_loop,
    "padded": dispatch_padded,
    "sorted": dispatch_sorted,
    "native": dispatch_native,
    "grouped": dispatch_grouped,
}


def dispatch_experts(
    name: str, x_TD: Tensor, experts: Experts, chosen_TK: Tensor, gates_TK: Tensor, activation: str
) -> Tensor:
    """sum_k gate_k expert_k(x) for every token, (T, D), in the dtype the products run in."""
    dtype = compute_dtype(x_TD)
    x, first, down = x_TD.to(dtype), experts.first.to(dtype), experts.down_proj.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        return DISPATCHES[name](x, first, down, chosen_TK, gates_TK, activation)


def check_dispatch(name: str) -> str:
    """The name itself; raises InputError where there is no such back end."""
    if name not in DISPATCHES and name not in ("auto", "none"):
        raise InputError(f"dispatch: must be one of auto, {', '.join(DISPATCHES)}, got {name!r}")
    return name


def resolve_dispatch(config: ModelConfig, device: torch.device | str, dtype: torch.dtype) -> str:
    """The name that `auto` stands for on this device, dtype and shape: `none` for a dense model."""
    if config.moe is None:
        return "none"
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and dtype == torch.float32 and config.activation == "swiglu" and load()[0] is not None:
        return "native"
    if not on_cpu and dtype == torch.bfloat16 and grouped_works(config, dtype):
        return "grouped"
    return "sorted" if on_cpu else "padded"
