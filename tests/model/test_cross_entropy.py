"""The chunked cross-entropy against torch's own: values and gradients, ignored targets, every reduction."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moelab.errors import InputError
from moelab.model import cross_entropy, cross_entropy_reference, linear_cross_entropy
from moelab.model.head import Head

CASES = [("mean", (1.0, 0.0)), ("mean", (1.0, 0.3)), ("sum", (0.5, 0.1)), ("none", (1.0, 0.2))]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moelab.model.cross_entropy._CHUNK_ELEMENTS", 40 * 16)


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(70, 8, generator=generator)
    weight = 2 * torch.randn(16, 8, generator=generator)
    targets = torch.randint(0, 16, (70,), generator=generator)
    targets[[3, 40, 69]] = -100
    return hidden, weight, targets


@pytest.mark.parametrize(("reduction", "weights"), CASES)
def test_equals_torch(reduction: str, weights: tuple[float, float]) -> None:
    results = []
    for function in (linear_cross_entropy, cross_entropy_reference):
        hidden, weight, targets = problem()
        hidden.requires_grad_()
        weight.requires_grad_()
        loss, square = function(hidden, weight, targets, reduction=reduction)
        total = (weights[0] * loss + weights[1] * square).sum()
        results.append([loss, square, *torch.autograd.grad(total, (hidden, weight))])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("reduction", "weights"), CASES)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("biased", [False, True])
def test_a_bias_and_a_cap_equal_torch(
    reduction: str, weights: tuple[float, float], softcap: float | None, biased: bool
) -> None:
    results = []
    for function in (linear_cross_entropy, cross_entropy_reference):
        hidden, weight, targets = problem()
        inputs = [hidden, weight] + [torch.randn(16, generator=torch.Generator().manual_seed(1))] * biased
        for tensor in inputs:
            tensor.requires_grad_()
        head = Head(weight, inputs[2] if biased else None, softcap)
        loss, square = function(hidden, head, targets, reduction=reduction)
        with torch.no_grad():
            alone = function(hidden, head, targets, reduction=reduction)
        total = (weights[0] * loss + weights[1] * square).sum()
        results.append([loss, square, *alone, *torch.autograd.grad(total, inputs)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch_without_gradients(reduction: str) -> None:
    hidden, weight, targets = problem()
    with torch.no_grad():
        fast = linear_cross_entropy(hidden, weight, targets, reduction=reduction)
        slow = cross_entropy_reference(hidden, weight, targets, reduction=reduction)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    if reduction == "none":
        assert fast[0][3] == 0


def test_huge_logits_stay_finite() -> None:
    hidden, weight, targets = problem()
    loss, square = linear_cross_entropy((1e3 * hidden).requires_grad_(), weight, targets)
    assert torch.isfinite(loss)
    assert torch.isfinite(square)


def test_autocast_keeps_the_loss_in_fp32() -> None:
    hidden, weight, targets = problem()
    exact = linear_cross_entropy(hidden, weight, targets)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight.requires_grad_(), targets)[0]
        (gradient,) = torch.autograd.grad(loss, weight)
    assert loss.dtype == gradient.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)


def test_unknown_reduction() -> None:
    with pytest.raises(InputError, match="reduction: must be one of mean, sum, none"):
        linear_cross_entropy(*problem(), reduction="average")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("wrong", [16, 10**9, -1, -99])
def test_a_target_out_of_range_is_one_line(reduction: str, wrong: int) -> None:
    """The compiled kernel would write beyond its row, and take any negative target for an ignored one."""
    hidden, weight, targets = problem()
    targets[20] = wrong
    with pytest.raises(InputError, match=f"targets: must be 0 to 15, or -100 to be ignored; got {wrong}"):
        linear_cross_entropy(hidden.requires_grad_(), weight, targets, reduction=reduction)


def test_the_gradient_of_the_weight_is_added_up_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a hundred chunks of bf16 products it is no further from the exact one than a single product's."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 32, generator=generator).bfloat16() for n in (800, 80))
    targets = torch.randint(80, (800,), generator=generator)
    monkeypatch.setattr("moelab.model.cross_entropy._CHUNK_ELEMENTS", 80 * 8)
    gradients = []
    for dtype, ours in ((torch.float64, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        w, h = weight.to(dtype, copy=True).requires_grad_(), hidden.to(dtype)
        reference = torch.nn.functional.cross_entropy(h @ w.T, targets)
        (linear_cross_entropy(h, w, targets)[0] if ours else reference).backward()
        assert w.grad is not None
        gradients.append(w.grad.double())
    exact, torchs, found = gradients
    assert (found - exact).norm() <= 1.1 * (torchs - exact).norm()


@pytest.mark.parametrize(
    ("memory", "elements"), [(4e9, 2**24), (16e9, 2**25), (24e9, 2**25), (85e9, 2**27), (151e9, 2**28), (1e12, 2**28)]
)
def test_a_chunk_on_a_gpu_follows_its_memory(memory: float, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def properties(device: torch.device) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(total_memory=int(memory))

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    device = torch.device("cuda", 3)
    assert cross_entropy.chunk_elements(device) == elements
    weight: Any = SimpleNamespace(device=device, shape=(50304, 8))
    first = next(cross_entropy._chunks(weight, 10**6))
    assert first == slice(0, elements // 50304)
    assert set(asked) == {device}
    asked.clear()
    cross_entropy.chunk_elements(torch.device("cpu"))
    assert asked == []
