"""Recomputed layers give the same outputs and gradients, keep the chosen experts, and hold less while they wait."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.decoder import DecoderLayer

SIZES = {"vocab_size": 64, "d_model": 32, "n_layers": 3, "n_heads": 2, "d_ff": 64}
MOE: dict[str, Any] = {"n_experts": 8, "top_k": 2, "d_expert": 16}
KINDS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "token choice": {**MOE, "balance_loss": 0.1, "z_loss": 0.1, "bias_update": 0.01},
    "capacity": {**MOE, "capacity_factor": 1.0, "capacity_drop": "score"},
    "expert choice": {**MOE, "router": "expert_choice"},
}
TOKENS = torch.randint(0, 64, (4, 32), generator=torch.Generator().manual_seed(0))


def model_of(moe: dict[str, Any] | None, kind: str | None, dispatch: str) -> LanguageModel:
    model = build_model(ModelConfig.parse({**SIZES, "moe": moe}), dispatch="none" if moe is None else dispatch)
    for module in model.modules():
        if isinstance(module, DecoderLayer):
            module.recompute = kind
    return model


class Alive(TorchDispatchMode):
    """The storages that operations made and that are still held, in bytes; and how often `topk` ran."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.choices = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.choices += func is torch.ops.aten.topk.default
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.made[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        return found

    @property
    def bytes(self) -> int:
        return sum(size for storage, size in self.made.values() if not storage.expired())


@pytest.mark.parametrize("dispatch", ["loop", "sorted", "grouped"])
@pytest.mark.parametrize("kind", ["selective", "full"])
@pytest.mark.parametrize("moe", list(KINDS.values()), ids=list(KINDS))
def test_outputs_gradients_and_loads_are_the_same(moe: dict[str, Any] | None, kind: str, dispatch: str) -> None:
    plain, again = (model_of(moe, each, dispatch) for each in (None, kind))
    for model in (plain, again):
        model.loss(TOKENS, TOKENS).total.backward()
    assert plain.loss(TOKENS, TOKENS).total == again.loss(TOKENS, TOKENS).total
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        # A repeated pass may add up the gradients of one tensor in another order.
        assert float((one.grad - other.grad).abs().max()) <= 1e-5 * float(one.grad.abs().max()), name
    for (name, one), other in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_the_experts_are_chosen_once(kind: str) -> None:
    with Alive() as seen:
        model_of(MOE, kind, "sorted").loss(TOKENS, TOKENS).total.backward()
    assert seen.choices == SIZES["n_layers"]


def test_less_is_held_between_the_passes() -> None:
    held = {}
    for kind in (None, "selective", "full"):
        model = model_of(MOE, kind, "grouped")
        with Alive() as seen:
            output = model.loss(TOKENS, TOKENS)
            held[kind] = seen.bytes
        output.total.backward()
    print(held)
    assert held["full"] < held["selective"] < held[None]
    routes = 3 * TOKENS.numel() * 2 * (8 + 4)
    inputs = 3 * TOKENS.numel() * 32 * 4
    assert held["full"] < held[None] / 2
    assert held["full"] > routes + inputs
