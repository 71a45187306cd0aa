"""Native fp32 kernels for the CPU: `usable(x)` says whether they may run, `ops` holds the functions that call them."""

import torch
from torch import Tensor

from moelab.model.native.build import load


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels were compiled and these tensors are plain fp32 on the CPU.

    Under autocast, and while PyTorch watches operations (its FLOP counter, torch.compile), the reference path runs.
    """
    return (
        not torch.compiler.is_compiling()
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
        and not torch.is_autocast_enabled("cpu")
        and torch._C._len_torch_dispatch_stack() == 0
        and load()[0] is not None
    )


def status() -> str:
    """One line: where the compiled kernels lie, or why there are none."""
    library, text = load()
    return f"native kernels: {text}" if library is not None else f"no native kernels: {text}"


__all__ = ["load", "status", "usable"]
