"""Attention's fast paths against all scores at once: outputs and gradients, by each kind of kernels."""

import functools
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moelab.model import native
from moelab.model.attend import Scores, attend, attend_reference
from moelab.model.rotary import frequencies, rotary_table, rotate, rotate_first

KINDS: list[dict[str, Any]] = [
    {"kind": "full"},
    {"kind": "window", "window": 1},
    {"kind": "window", "window": 4},
    {"kind": "window", "window": 11},
    {"kind": "window", "window": 60},
    {"kind": "chunk", "window": 1},
    {"kind": "chunk", "window": 4},
    {"kind": "chunk", "window": 11},
]


def tensors(length: int, value: int, sinks: bool) -> list[torch.Tensor]:
    """q, k, v of 2 sequences with 4 heads sharing 2, and sinks."""
    generator = torch.Generator().manual_seed(length + value)
    shapes = [(2, length, 4, 6), (2, length, 2, 6), (2, length, 2, value)] + [(4,)] * sinks
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def dumb(q: Any, k: Any, v: Any, scores: Scores, sinks: Any) -> torch.Tensor:
    """One query and one head at a time, as the definition reads."""
    rows = []
    for b, t, h in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        start = 0
        if scores.kind == "window":
            start = max(0, t - scores.window + 1)
        if scores.kind == "chunk":
            start = t // scores.window * scores.window
        keys, values = k[b, start : t + 1, h // 2], v[b, start : t + 1, h // 2]
        s = keys @ q[b, t, h] * scores.scale
        if scores.softcap:
            s = scores.softcap * torch.tanh(s / scores.softcap)
        weights = s.exp() / (s.exp().sum() + (0 if sinks is None else sinks[h].exp()))
        rows.append(weights @ values)
    return torch.stack(rows).view(*q.shape[:3], -1)


@functools.cache
def defined(kind: tuple[tuple[str, Any], ...], sinks: bool, softcap: float | None, value: int) -> tuple[Any, ...]:
    """Scores, inputs, outputs, a slope on them and the inputs' gradients, as the definition reads. Read only."""
    scores, inputs = Scores(scale=0.6, softcap=softcap, **dict(kind)), tensors(13, value, sinks)
    wanted = dumb(*inputs[:3], scores, inputs[3] if sinks else None)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(0))
    return scores, inputs, wanted.detach(), slope, torch.autograd.grad(wanted, inputs, slope)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize("value", [6, 4])
@pytest.mark.parametrize(("sinks", "softcap"), [(False, None), (True, None), (False, 0.7), (True, 0.7)])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_path_equals_the_definition(
    kind: dict[str, Any], sinks: bool, softcap: float | None, value: int, kernels: str
) -> None:
    scores, inputs, wanted, slope, expected = defined(tuple(kind.items()), sinks, softcap, value)
    sink = inputs[3] if sinks else None
    with native.using(kernels):
        for function in (attend, attend_reference):
            found = function(*inputs[:3], scores, sinks=sink)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
            gradients = torch.autograd.grad(found, inputs, slope)
            torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.elements = max(self.elements, found.numel())
        return found


@pytest.mark.parametrize("kind", ["window", "chunk"])
def test_blocks_do_not_form_all_scores(kind: Any) -> None:
    """The scores of 1,024 tokens in windows of 8 are 2 heads x 1,024 x 16, not 2 x 1,024 x 1,024."""
    q, k, v = (torch.randn(1, 1024, 2, 8) for _ in range(3))
    with Largest() as largest:
        attend(q, k, v, Scores(scale=1.0, kind=kind, window=8, softcap=5.0))
    assert largest.elements <= 2 * 1024 * 16


def test_neighbours_and_halves_give_the_same_scores() -> None:
    """Interleaved pairs come out as halves; products of queries and keys are those of a rotation in place."""
    cos, sin = rotary_table(0, 5, 6, 100.0, torch.device("cpu"))
    q, k = torch.randn(2, 1, 5, 1, 8, generator=torch.Generator().manual_seed(0)).unbind()
    in_place = []
    for x in (q, k):
        turned = x.clone()
        turned[..., 0:6:2] = x[..., 0:6:2] * cos - x[..., 1:6:2] * sin
        turned[..., 1:6:2] = x[..., 1:6:2] * cos + x[..., 0:6:2] * sin
        in_place.append(turned)
    found = [rotate_first(x, cos, sin, interleaved=True) for x in (q, k)]
    torch.testing.assert_close((found[0] * found[1]).sum(-1), (in_place[0] * in_place[1]).sum(-1))
    torch.testing.assert_close(rotate_first(q, cos, sin, interleaved=False)[..., 6:], q[..., 6:])
    torch.testing.assert_close(rotate_first(q, cos, sin, interleaved=False)[..., :6], rotate(q[..., :6], cos, sin))


def test_frequencies_without_scaling_are_the_formula() -> None:
    assert frequencies(4, 100.0).tolist() == pytest.approx([1.0, 0.1])
