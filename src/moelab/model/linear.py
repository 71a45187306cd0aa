"""Linear layers: no values on the device `meta`, and where it pays the compiled kernel's product."""

import torch.nn.functional as F
from torch import Tensor, nn

from moelab.model.native import ops, usable

ENOUGH_ROWS = 64
"""Below this many rows packing the weights costs more than it saves."""


class PlainLinear(nn.Linear):
    """`nn.Linear`, which does not draw weights that have no memory: PyTorch does that slowly, in Python."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Linear(PlainLinear):
    """x (..., K) -> x weight^T + bias, (..., N), by the compiled kernel where it may run and there are rows enough."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < ENOUGH_ROWS * self.in_features or not usable(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        y: Tensor = ops.Linear.apply(x, self.weight)
        return y if self.bias is None else y + self.bias
