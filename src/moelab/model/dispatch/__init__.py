"""How the routed experts are run: several back ends behind one function, all held to the reference `loop`.

T tokens, D width, E experts of width F, K chosen per token, R = T K routed rows.
"""

from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model.dispatch.exchanged import dispatch_exchanged
from moelab.model.dispatch.grouped import dispatch_grouped, grouped_works
from moelab.model.dispatch.loop import dispatch_loop
from moelab.model.dispatch.native import dispatch_native
from moelab.model.dispatch.padded import dispatch_padded
from moelab.model.dispatch.sorted import dispatch_sorted
from moelab.model.feed_forward import Experts
from moelab.model.native import load
from moelab.model.precision import compute_dtype
from moelab.printable import warn


class Dispatch(Protocol):
    """(x_TD, first (E, 2F or F, D), down (E, D, F), chosen_TK, gates_TK, activation, biases (E, 2F or F) and (E, D))
    -> y_TD"""

    def __call__(
        self,
        x_TD: Tensor,
        first: Tensor,
        down: Tensor,
        chosen_TK: Tensor,
        gates_TK: Tensor,
        activation: str,
        biases: tuple[Tensor, Tensor] | None = None,
        /,
    ) -> Tensor: ...


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
    x = x_TD.to(compute_dtype(x_TD))
    if name == "native" and (experts.has_bias or activation != "swiglu"):
        _note_fallback()

    def compute(owned: Experts, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        first, down = owned.weights(x.dtype)
        if owned.biases is None:
            return DISPATCHES[name](x, first, down, chosen, gates, activation)
        added = (owned.biases[0].to(x.dtype), owned.biases[1].to(x.dtype))
        return DISPATCHES[name](x, first, down, chosen, gates, activation, added)

    with torch.autocast(x.device.type, enabled=False):
        if experts.exchange is None:
            y: Tensor = experts(compute, x, chosen_TK, gates_TK)
            return y
        n_experts = experts.first.shape[0] * experts.exchange.size
        return dispatch_exchanged(partial(experts, compute), experts.exchange, x, chosen_TK, gates_TK, n_experts)


def dispatch_scaled_inputs(
    name: str,
    x_TD: Tensor,
    experts: Experts,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    kept_TK: Tensor | None,
    activation: str,
) -> Tensor:
    """sum_k expert_k(gate_k x) for every token, (T, D) (Llama 4); choices that are not `kept` add nothing."""
    top_k = chosen_TK.shape[1]
    x_RD = (x_TD[:, None] * gates_TK[..., None].to(x_TD.dtype)).flatten(0, 1)
    ones = torch.ones_like(gates_TK) if kept_TK is None else kept_TK.to(gates_TK.dtype)
    y_RD = dispatch_experts(name, x_RD, experts, chosen_TK.reshape(-1, 1), ones.reshape(-1, 1), activation)
    return y_RD.unflatten(0, (-1, top_k)).sum(1)


@cache
def _note_fallback() -> None:
    warn("dispatch native: the compiled kernel has plain SwiGLU experts without biases; `sorted` runs in its place")


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
    plain = config.activation == "swiglu" and not config.swiglu_limit and not config.moe.expert_bias
    if on_cpu and dtype == torch.float32 and plain and load()[0] is not None:
        return "native"
    if not on_cpu and dtype == torch.bfloat16 and grouped_works(config, dtype):
        return "grouped"
    return "sorted" if on_cpu else "padded"
