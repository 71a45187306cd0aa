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


def counting(graphs: list[int]) -> Any:
    """A backend of torch.compile that runs graphs as they are and notes how often each casts a stack to bf16."""
    from functorch.compile import make_boxed_func  # takes a second, which collection need not wait for
    from torch._dynamo.backends.common import aot_autograd

    def compile_graph(graph: Any, inputs: Any) -> Any:
        casts = [node for node in graph.graph.nodes if node.target is torch.ops.aten._to_copy.default]
        values = [node.meta["val"] for node in casts]
        graphs.append(sum(v.ndim == 3 and v.shape[0] == 8 and v.dtype == torch.bfloat16 for v in values))
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=compile_graph, bw_compiler=compile_graph)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about itself
def test_compiled_layers_take_the_same_copies() -> None:
    """Few graphs for all steps, no cast in those that get copies, and the gradients of a cast in every pass."""
    torch._dynamo.reset()
    kept, cast = make(MOE), make(MOE)
    graphs: tuple[list[int], list[int]] = ([], [])
    for model, seen in zip((kept, cast), graphs, strict=True):
        for layer in model.model.layers:
            layer.compile(fullgraph=True, backend=counting(seen))
    optimizers = [Optimizer(model, TrainConfig(tokens=32, seq_len=16, batch_tokens=32)) for model in (kept, cast)]
    for _ in range(3):
        with shared_copies(kept, torch.bfloat16):
            accumulate(kept)
        accumulate(cast)
        for one, other in zip(kept.parameters(), cast.parameters(), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert torch.equal(one.grad, other.grad)
        for optimizer in optimizers:
            optimizer.step(1e-2)
    assert sum(graphs[0]) == 0 < sum(graphs[1])
    assert len(graphs[0]) == len(graphs[1]), "copies that are new in each step compile nothing anew"


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
