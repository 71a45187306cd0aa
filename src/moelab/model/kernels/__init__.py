"""Triton kernels for CUDA devices: `usable(x)` is whether they may run, `ops` holds the functions that call them.

Each stands beside a reference in PyTorch where it is called, which also runs where Triton is missing or switched off
(MOELAB_KERNELS=0). With TRITON_INTERPRET=1 the kernels run on CPU tensors, which is how tests hold them to the
reference.
"""

import importlib.util
import os

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
AVAILABLE = os.environ.get("MOELAB_KERNELS", "1") != "0" and importlib.util.find_spec("triton") is not None
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels may run on these tensors: on one CUDA device (or interpreted), in 16 or 32 bits."""
    return AVAILABLE and all((t.is_cuda or (INTERPRETED and not t.is_meta)) and t.dtype in _DTYPES for t in tensors)


__all__ = ["AVAILABLE", "INTERPRETED", "usable"]
