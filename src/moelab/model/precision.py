"""Dtypes: what matrix products run in, and what everything between two products is computed in."""

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that autocast wants on x's device, or x's own. Custom autograd functions ask before they cast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def full_precision(x: Tensor) -> Tensor:
    """x in fp32, or in fp64 where it is so already. Between two products values are computed so, and rounded once."""
    return x if x.dtype == torch.float64 else x.float()
