"""Rows of several experts are added up for each token in fp32 and in a fixed order, forward and backward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from moelab.architecture import ModelConfig
from moelab.model import MoELayer, build_model
from moelab.model.dispatch import permutation
from moelab.model.dispatch.permutation import add_rows, combine_rows, places, read_rows, sort_by_expert, sum_rows

MOE = {"n_experts": 8, "top_k": 3, "d_expert": 16}
CHOICE = {**MOE, "router": "expert_choice", "group_size": 8}
ATOMIC = ("index_add", "index_add_", "index_put", "index_put_", "_index_put_impl_", "scatter_add", "scatter_add_")


class Atomic(TorchDispatchMode):
    """Notes operators that add rows of floating point up in no fixed order on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket).split(".")[-1]
        if name in ATOMIC and args[0].is_floating_point() and args[0].ndim == 2:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutation, "sorts_sums", lambda x: True)


def layer(moe: dict[str, Any]) -> MoELayer:
    config = ModelConfig.parse({"vocab_size": 32, "d_model": 32, "n_layers": 1, "n_heads": 2, "moe": moe})
    found: Any = build_model(config, seed=3, dispatch="grouped").model.layers[0].mlp
    return found


def gradients(moe: MoELayer, x: Tensor, autocast: bool = False) -> list[Tensor]:
    """The output, and the gradients of input and parameters."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = moe(x)[0]
    weight = torch.linspace(-1, 2, y.numel(), dtype=x.dtype).sin().view_as(y)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *moe.parameters()])]


@pytest.mark.parametrize("moe", [MOE, CHOICE], ids=["token choice", "expert choice"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.usefixtures("as_on_a_gpu")
def test_no_row_is_added_atomically(moe: dict[str, Any], autocast: bool) -> None:
    x = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1))
    with Atomic() as watch:
        gradients(layer(moe), x, autocast)
    assert watch.found == []


def test_a_cpu_adds_rows_by_index_add() -> None:
    """Its order is fixed there, and recorded runs keep their digits."""
    x = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1))
    with Atomic() as watch:
        gradients(layer(CHOICE), x)
    assert "index_add" in watch.found


def dumb_sum(y_RD: Tensor, token: Tensor, n_tokens: int) -> Tensor:
    """Row by row, in fp32 or above."""
    sums = torch.zeros(n_tokens, y_RD.shape[1], dtype=torch.promote_types(y_RD.dtype, torch.float32))
    for row, place in zip(y_RD, token.tolist(), strict=True):
        sums[place] += row.to(sums.dtype)
    return sums.to(y_RD.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("n_rows", "n_tokens"), [(40, 9), (5, 30), (1, 1), (64, 1)])
@pytest.mark.usefixtures("as_on_a_gpu")
def test_sums_and_gradients_equal_the_dumb_sum(dtype: torch.dtype, n_rows: int, n_tokens: int) -> None:
    """Tokens of no row, of one and of many; rows in fp32 and fp64 to rounding, in bf16 bit for bit."""
    generator = torch.Generator().manual_seed(n_rows)
    token = torch.randint(n_tokens, (n_rows,), generator=generator)
    y, x = (torch.randn(n, 6, generator=generator).to(dtype).requires_grad_() for n in (n_rows, n_tokens))
    d_x, d_y = (torch.randn(n, 6, generator=generator).to(dtype) for n in (n_tokens, n_rows))
    added, read = add_rows(y, token, n_tokens), read_rows(x, token)
    torch.testing.assert_close(added, dumb_sum(y.detach(), token, n_tokens))
    torch.testing.assert_close(sum_rows(y.detach(), token, n_tokens), added)
    assert torch.equal(read, x[token])
    assert torch.equal(torch.autograd.grad(added, y, d_x)[0], d_x[token])
    torch.testing.assert_close(torch.autograd.grad(read, x, d_y)[0], dumb_sum(d_y, token, n_tokens))


@pytest.mark.parametrize("combine", ["combine_rows", "sum_rows", "the gradient of a reading"])
def test_bf16_rows_are_added_in_fp32(combine: str, as_on_a_gpu: None) -> None:
    """256 and seven ones are 264 in bf16, and 256 where every addition is rounded."""
    rows = torch.tensor([256.0] + [1.0] * 7).bfloat16()[:, None].repeat(2, 3)
    chosen = torch.arange(8).repeat(2, 1)
    order, token, _ = sort_by_expert(chosen, 8)
    sorted_rows = rows[order]
    functions: dict[str, Callable[[], Tensor]] = {
        "combine_rows": lambda: combine_rows(sorted_rows, places(order, 8)),
        "sum_rows": lambda: sum_rows(sorted_rows, token, 2),
        "the gradient of a reading": lambda: read_gradient(sorted_rows, token),
    }
    assert functions[combine]().tolist() == [[264.0] * 3] * 2


def read_gradient(grads: Tensor, token: Tensor) -> Tensor:
    x = torch.zeros(2, grads.shape[1], dtype=grads.dtype, requires_grad=True)
    return torch.autograd.grad(read_rows(x, token), x, grads)[0]


@pytest.mark.parametrize("grouping", ["batch", "sequence"])
def test_expert_choice_in_a_fixed_order_is_expert_choice(grouping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moe = layer({**CHOICE, "grouping": grouping})
    x = torch.randn(4, 8, 32, generator=torch.Generator().manual_seed(1))
    expected, rounded = gradients(moe, x), gradients(moe, x, autocast=True)
    monkeypatch.setattr(permutation, "sorts_sums", lambda x: True)
    for found, wanted in zip(gradients(moe, x), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    for found, other, exact in zip(gradients(moe, x, autocast=True), rounded, expected, strict=True):
        assert (found - exact).norm() <= 1.1 * (other - exact).norm()
