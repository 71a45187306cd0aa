"""Every dispatch back end against a dumb loop over tokens: outputs and all gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.model.dispatch import DISPATCHES
from moelab.model.feed_forward import first_width

D, F_WIDTH = 16, 8
ACTIVATIONS = ["swiglu", "relu", "gelu", "geglu", "clamped_swiglu@0.2", "swiglu@0.2"]


def reference(x: Tensor, first: Tensor, down: Tensor, chosen: Tensor, gates: Tensor, activation: str) -> Tensor:
    """Token by token, expert by expert, as a paper would write it."""
    rows = []
    for token in range(x.shape[0]):
        y = torch.zeros(x.shape[1], dtype=x.dtype)
        for expert, gate in zip(chosen[token].tolist(), gates[token], strict=True):
            h = first[expert] @ x[token]
            half = h.shape[0] // 2
            opened, up = h[:half], h[half:]
            if "@0.2" in activation:
                opened, up = torch.clamp(opened, max=0.2), torch.clamp(up, -0.2, 0.2)
            if activation in ("relu", "gelu"):
                h = F.relu(h) if activation == "relu" else F.gelu(h)
            elif activation == "geglu":
                h = F.gelu(opened, approximate="tanh") * up
            elif activation == "clamped_swiglu@0.2":
                h = (up + 1) * opened * torch.sigmoid(1.702 * opened)
            else:
                h = F.silu(opened) * up
            y = y + gate * (down[expert] @ h)
        rows.append(y)
    return torch.stack(rows)


def inputs(n_experts: int, top_k: int, activation: str, skewed: bool = False, n_tokens: int = 24) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n_experts * 100 + top_k)
    scores = torch.rand(n_tokens, n_experts, generator=generator)
    if skewed:
        scores = scores + 5 * (torch.arange(n_experts) < top_k)
    gates, chosen = scores.topk(top_k)
    x = torch.randn(n_tokens, D, generator=generator)
    first = torch.randn(n_experts, first_width(F_WIDTH, activation), D, generator=generator) / 4
    down = torch.randn(n_experts, D, F_WIDTH, generator=generator) / 3
    return [x, first, down, chosen, gates / gates.sum(-1, keepdim=True)]


def gradients(function, tensors: list[Tensor], activation: str) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in tensors]
    y = function(*leaves, activation)
    weight = torch.linspace(-1, 1, y.numel()).view_as(y)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), wanted)]


@pytest.mark.parametrize("name", DISPATCHES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("n_experts", "top_k", "skewed"), [(1, 1, False), (4, 2, False), (8, 3, True), (5, 5, False)])
def test_equals_the_loop_over_tokens(name: str, activation: str, n_experts: int, top_k: int, skewed: bool) -> None:
    tensors = inputs(n_experts, top_k, activation, skewed)
    expected = gradients(reference, tensors, activation)
    actual = gradients(DISPATCHES[name], tensors, activation)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DISPATCHES)
def test_one_token(name: str) -> None:
    tensors = inputs(4, 2, "swiglu", n_tokens=1)
    expected = reference(*tensors, "swiglu")
    torch.testing.assert_close(DISPATCHES[name](*tensors, "swiglu"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", DISPATCHES)
def test_bf16_is_near_fp32(name: str) -> None:
    tensors = inputs(4, 2, "swiglu")
    expected = gradients(DISPATCHES["loop"], tensors, "swiglu")
    rounded = [t.bfloat16() if t.is_floating_point() and i < 3 else t for i, t in enumerate(tensors)]
    for a, b in zip(gradients(DISPATCHES[name], rounded, "swiglu"), expected, strict=True):
        assert (a.float() - b).abs().max() < 0.03 * b.abs().max()
