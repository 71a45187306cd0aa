"""Native fp32 kernels for the CPU: `usable(x)` is whether they may run, `ops` holds the functions that call them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from moelab.errors import InputError
from moelab.model.native.build import load

_switched_off = False


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels were compiled and these tensors are plain fp32 on the CPU.

    Under autocast, and while PyTorch watches operations (its FLOP counter, torch.compile), the reference path runs.
    """
    if _switched_off or torch.compiler.is_compiling():
        return False
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_cpu:
            return False
    return not torch.is_autocast_enabled("cpu") and torch._C._len_torch_dispatch_stack() == 0 and load()[0] is not None


@contextmanager
def using(kernels: str) -> Iterator[None]:
    """Within this block fp32 on the CPU is computed by `native` or by `torch` kernels alone; `auto` leaves it as it is.

    It holds for the whole process, as its number of threads does. Raises InputError where `native` kernels are asked
    for and there are none.
    """
    global _switched_off
    library, text = load()
    if kernels == "native" and library is None:
        raise InputError(f"train.kernels: native was asked for, but there are none: {text}; allowed: torch, auto")
    before = _switched_off
    _switched_off = before if kernels == "auto" else kernels == "torch"
    try:
        yield
    finally:
        _switched_off = before


def status() -> str:
    """One line: where the compiled kernels lie, or why there are none."""
    library, text = load()
    return f"native kernels: {text}" if library is not None else f"no native kernels: {text}"


__all__ = ["load", "status", "usable", "using"]
