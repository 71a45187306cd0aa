"""A linear layer whose product is the compiled kernel's where that may run and there are rows enough to pack for."""

import torch.nn.functional as F
from torch import Tensor, nn

from moelab.model.native import ops, usable

_ENOUGH_ROWS = 64
"""Below this many rows packing the weights costs more than it saves."""


class Linear(nn.Linear):
    """x (..., K) -> x weight^T + bias, (..., N)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < _ENOUGH_ROWS * self.in_features or not usable(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        y: Tensor = ops.Linear.apply(x, self.weight)
        return y if self.bias is None else y + self.bias
