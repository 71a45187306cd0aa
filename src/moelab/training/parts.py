"""What an optimiser needs to know of a model: its parameters, or the rows of them that this process holds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Parts:
    """A whole model in this process: every part is the parameter itself."""

    def __init__(self, model: nn.Module) -> None:
        self.named: dict[str, Tensor] = dict(model.named_parameters())

    def shape(self, name: str) -> torch.Size:
        """The shape of the whole parameter, or of the whole experts of it that this process holds."""
        return self.named[name].shape

    def take_gradients(self) -> None:
        """Before a step: every one of `named` has its gradient then."""

    def norm(self) -> Tensor:
        """The norm of all gradients of the model."""
        return nn.utils.get_total_norm([part.grad for part in self.named.values() if part.grad is not None])

    def whole(self, names: Sequence[str], parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """Of values like these parameters, those that this process computes with, whole."""
        return dict(zip(names, parts, strict=True))

    def own(self, names: Sequence[str], wholes: dict[str, Tensor]) -> list[Tensor]:
        """The way back: this process's part of every name, from the whole ones that were computed."""
        return [wholes[name] for name in names]

    def total(self, count: Tensor) -> Tensor:
        """A count that every process made of its own parts, of the whole model."""
        return count
