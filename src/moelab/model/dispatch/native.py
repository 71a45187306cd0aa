"""All experts in one call of a compiled kernel: rows gathered, multiplied, gated and added block by block in cache."""

from torch import Tensor

from moelab.model.dispatch.sorted import dispatch_sorted
from moelab.model.native import usable
from moelab.model.native.ops import Experts


def dispatch_native(
    x_TD: Tensor,
    first: Tensor,
    down: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    activation: str,
    biases: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """sum_k gate_k expert_k(x), (T, D); `sorted` where the kernel cannot run (no compiler, bf16, biases, other
    activations)."""
    if activation != "swiglu" or biases is not None or not usable(x_TD, first, down, gates_TK):
        return dispatch_sorted(x_TD, first, down, chosen_TK, gates_TK, activation, biases)
    y: Tensor = Experts.apply(x_TD, first, down, chosen_TK, gates_TK)
    return y
