"""How the processes of a run hold its model: one has it alone, or each has a whole one (DDP). `mesh` shards it."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from moelab.model import LanguageModel, LossOutput, build_model
from moelab.model.decoder import DecoderLayer
from moelab.runs import RunConfig, TrainConfig
from moelab.training.parts import Parts
from moelab.training.processes import World


class Replicated:
    """The model of a run where every process has a whole one, and what its steps and checkpoints need of the others.

    `model` is this process's, `parts` what its optimiser steps. `sharded` is whether each process holds a part: then
    all of them evaluate and write.
    """

    sharded = False
    model: LanguageModel
    parts: Parts

    def __init__(self, config: RunConfig, everyone: World, dtype: torch.dtype = torch.float32) -> None:
        train = config.train
        self.config, self.everyone = config, everyone
        self.take(build_model(config.model, seed=train.seed, dispatch=train.dispatch).to(train.device, dtype))

    def take(self, model: LanguageModel) -> None:
        """Train this model from now on."""
        prepare_layers(model, self.config.train)
        self.model, self.parts = model, Parts(model)
        self._network: nn.Module = _LossModule(model)
        if self.everyone.size > 1:
            # Buffers (biases, tables) are the same everywhere; PyTorch 2.13 renamed the option for that.
            known = inspect.signature(DistributedDataParallel.__init__).parameters
            option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            options: dict[str, Any] = {option: False}
            self._network = DistributedDataParallel(self._network, **options)

    def loss(self, tokens: Tensor, targets: Tensor, **options: Any) -> LossOutput:
        """`model.loss`, whose backward pass averages gradients over the processes."""
        output: LossOutput = self._network(tokens, targets, **options)
        return output

    def piece(self, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a piece of the batch: gradients travel with the last one alone."""
        if last or not isinstance(self._network, DistributedDataParallel):
            return nullcontext()
        return self._network.no_sync()

    @property
    def divisor(self) -> int:
        """What a piece's loss is divided by, besides the number of pieces, before its backward pass."""
        return 1

    def state(self) -> dict[str, Tensor]:
        """The parameters and saved buffers that this process holds, by name."""
        return self.model.state_dict()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state` returned. Raises RuntimeError where it does not fit."""
        self.model.load_state_dict(tensors)

    def whole_model(self) -> LanguageModel:
        """The model with all of its weights; on a mesh of use to the first process alone."""
        return self.model


def prepare_layers(model: LanguageModel, train: TrainConfig) -> None:
    """Compile the layers, or have their activations recomputed, as the run wants it."""
    for layer in model.model.layers:
        if train.compile == "blocks":
            layer.compile()
    for module in model.modules():
        if isinstance(module, DecoderLayer):
            module.recompute = train.recompute


class _LossModule(nn.Module):
    """`model.loss` as a forward pass, which is what DDP wraps."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, **options: Any) -> LossOutput:
        return self.model.loss(tokens, targets, **options)
