"""Which dtype a matrix product runs in: autocast's where it is on, the tensor's own where it is not."""

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that autocast wants on x's device, or x's own. Custom autograd functions ask before they cast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
