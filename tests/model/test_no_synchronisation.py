"""The grouped path makes no call that would wait for a GPU: every operation of a training step is watched.

On a CUDA device reading a value on the host (`item`, `tolist`, `nonzero`, a mask as an index, and `bincount`, which
asks for the largest value) stops the host until the device is done. This is not a run on a GPU.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model, rotary
from moelab.model.dispatch.grouped import dispatch_grouped
from moelab.runs import TrainConfig
from moelab.training import Optimizer

MOE = {"n_experts": 8, "top_k": 2, "d_expert": 16}
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "bincount")


class Watch(TorchDispatchMode):
    """Notes the operations that read a value on the host or move a tensor to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func.overloadpacket).split(".")[-1]
        masks = (
            [i for i in args[1] if i is not None and i.dtype == torch.bool] if name in ("index", "index_put_") else []
        )
        if name in WAITING or masks:
            self.found.append(name)
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    "moe",
    [
        MOE,
        {**MOE, "score": "sigmoid", "bias_update": 0.01, "n_shared_experts": 1, "d_shared": 16},
        {**MOE, "normalize_gates": False, "shared_gate": True, "n_shared_experts": 1, "d_shared": 16},
    ],
)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_training_step_of_grouped_never_waits(moe: dict[str, Any], autocast: bool) -> None:
    sizes = {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 2}
    model = build_model(ModelConfig.parse({**sizes, "moe": moe}), dispatch="grouped")
    tokens = torch.zeros(2, 16, dtype=torch.long)
    with Watch() as watch, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total = model.loss(tokens, tokens).total
    with watch:
        total.backward()
        model.update_routers()
    assert watch.found == []
    assert all(p.grad is not None for p in model.parameters())


def test_the_watch_sees_what_waits() -> None:
    with Watch() as watch:
        torch.ones(3).sum().item()
        torch.ones(3)[torch.tensor([True, False, True])]
    assert watch.found == ["_local_scalar_dense", "index"]
    first, down = torch.ones(4, 16, 8), torch.ones(4, 8, 8)
    with Watch() as watch:
        dispatch_grouped(torch.ones(6, 8), first, down, torch.zeros(6, 2, dtype=torch.long), torch.ones(6, 2), "swiglu")
    assert watch.found == []


@pytest.fixture
def no_values() -> Iterator[FakeTensorMode]:
    """Tensors made within are meta tensors that know their device: reading a value of one raises."""
    caches = (rotary.rotary_table, rotary.frequencies)
    for cache in caches:
        cache.cache_clear()
    with FakeTensorMode() as mode:
        yield mode
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("moe", [None, {**MOE, "z_loss": 0.001, "bias_update": 0.01}], ids=["dense", "moe"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_whole_step_needs_no_value(moe: dict[str, Any] | None, optimizer: str, no_values: FakeTensorMode) -> None:
    config = ModelConfig.parse({"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 64, "moe": moe})
    model = LanguageModel(config, "none" if moe is None else "grouped")
    train = TrainConfig(tokens=32, seq_len=16, batch_tokens=32, optimizer=optimizer)
    steps, tokens = Optimizer(model, train), torch.zeros(2, 16, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        output = model.loss(tokens, tokens)
    output.total.backward()
    norm = steps.step(1e-3)
    model.update_routers()
    for value in (norm, output.loss):
        with pytest.raises(DataDependentOutputException):
            float(value)


class Count(TorchDispatchMode):
    """How many operators are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += func is not torch.ops.prim.device.default
        return func(*args, **(kwargs or {}))


def operators(moe: dict[str, Any] | None) -> int:
    """Operators of a step of 32,768 tokens: 12 layers of width 1,024, vocabulary 50,304. Nothing is computed."""
    sizes = {"vocab_size": 50304, "d_model": 1024, "n_layers": 12, "n_heads": 16, "d_ff": 4096, "moe": moe}
    train = TrainConfig(tokens=2**15, seq_len=2048, batch_tokens=2**15)
    model = LanguageModel(ModelConfig.parse(sizes), "none" if moe is None else "grouped")
    steps, tokens = Optimizer(model, train), torch.zeros(16, 2048, dtype=torch.long)
    with Count() as count:
        with torch.autocast("cpu", torch.bfloat16):
            output = model.loss(tokens, tokens)
        output.total.backward()
        steps.step(1e-3)
    return count.total


@pytest.mark.slow
@pytest.mark.parametrize("moe", [None, {"n_experts": 64, "top_k": 8, "d_expert": 512}], ids=["dense", "moe"])
def test_a_step_dispatches_few_operators_with_a_gpus_chunk(
    moe: dict[str, Any] | None, no_values: FakeTensorMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk of logits is 2^27 on 80 GB; with a CPU's, 2^19, the head alone dispatches tens of thousands. These fake
    CPU tensors stand for a GPU's, which takes no blocks of gated rows."""
    monkeypatch.setattr("moelab.model.dispatch.gated._BLOCK", 2**40)
    before = operators(moe)
    monkeypatch.setattr("moelab.model.cross_entropy._CHUNK_ELEMENTS", 2**27)
    after = operators(moe)
    print(
        f"operators of a step, {'dense' if moe is None else 'moe'}: {before} with a CPU's chunk, {after} with a GPU's"
    )
    assert before > 5 * after
