"""Copies of expert weights in bf16 are made once a step, and change nothing."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.feed_forward import shared_copies
from moelab.runs import TrainConfig
from moelab.training import Optimizer

MOE: dict[str, Any] = {"n_experts": 8, "top_k": 2, "d_expert": 16}
PIECES = torch.randint(0, 64, (3, 2, 16), generator=torch.Generator().manual_seed(0))


def make(moe: dict[str, Any]) -> LanguageModel:
    sizes = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 2}
    return build_model(ModelConfig.parse({**sizes, "moe": moe}), dispatch="grouped")


class Casts(TorchDispatchMode):
    """How often a stack of expert matrices was cast to bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].ndim == 3 and args[0].shape[0] == 8:
            self.count += kwargs.get("dtype") == torch.bfloat16
        return func(*args, **kwargs)


def accumulate(model: LanguageModel) -> None:
    for piece in PIECES:
        with torch.autocast("cpu", torch.bfloat16):
            total = model.loss(piece, piece).total
        total.backward()


@pytest.mark.parametrize("moe", [MOE, {**MOE, "router": "expert_choice"}], ids=["token choice", "expert choice"])
def test_a_step_makes_them_once(moe: dict[str, Any]) -> None:
    model = make(moe)
    optimizer = Optimizer(model, TrainConfig(tokens=32, seq_len=16, batch_tokens=32))
    for _ in range(2):
        with Casts() as casts, shared_copies(model):
            accumulate(model)
        assert casts.count == 2 * 2  # two matrices in each of two layers, for three pieces
        optimizer.step(1e-2)


def test_gradients_are_those_of_a_cast_in_every_pass() -> None:
    kept, cast = make(MOE), make(MOE)
    found = []
    for model, context in ((kept, shared_copies), (cast, nullcontext)):
        optimizer = Optimizer(model, TrainConfig(tokens=32, seq_len=16, batch_tokens=32))
        for _ in range(2):
            with context(model):
                accumulate(model)
            gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
            optimizer.step(1e-2)
        found.append(gradients)
    for name, one in found[0].items():
        assert one is not None
        assert one.dtype == torch.float32
        assert torch.equal(one, found[1][name]), name
