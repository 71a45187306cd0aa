"""The output head: how logits follow from hidden states. D width, V tokens of the vocabulary."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Head(NamedTuple):
    """How logits follow from hidden states: weight (V, D), bias (V,), and what they are capped to."""

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    @property
    def plain(self) -> bool:
        """Whether logits are the product alone, which the kernels compute."""
        return self.bias is None and self.softcap is None

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> (..., V)."""
        return capped(F.linear(hidden, self.weight, self.bias), self.softcap)

    def to(self, dtype: torch.dtype) -> "Head":
        """The same with the weight in this dtype; a bias is added in fp32."""
        return self._replace(weight=self.weight.to(dtype))


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """softcap tanh(logits / softcap), or the logits themselves without a cap."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
