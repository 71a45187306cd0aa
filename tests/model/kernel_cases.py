"""Every Triton kernel on odd shapes in Triton's interpreter, beside its reference: one JSON line a case with relative
errors. Run by test_kernels.py with TRITON_INTERPRET=1.

T tokens of width D, K of E experts of width F chosen per token; N rows of V logits; (B, T, H, A) queries.
"""

import json

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from moelab.model import cross_entropy, kernels
from moelab.model.dispatch import gated, grouped, permutation
from moelab.model.kernels import ops
from moelab.model.rotary import NormalizedRotary, rotary_table, rotate

SHAPES = [(1, 1, 1, 16, 8), (7, 3, 5, 17, 9), (33, 8, 64, 100, 40), (13, 2, 4, 2049, 1030), (0, 2, 4, 16, 16)]
HEADS = [(1, 1, 1, 4), (2, 7, 3, 10), (3, 5, 16, 64), (2, 3, 96, 128), (0, 4, 2, 8)]
LOGITS = [(1, 3), (9, 50), (5, 8200)]


def error(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact|."""
    return float((found.double() - exact.double()).norm() / exact.double().norm().clamp(min=1e-30))


def rows(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> dict[str, float]:
    """Rows spread, combined, gated and gated backward; the reference computes in fp32."""
    tokens, top_k, n_experts, d, f = shape
    chosen = torch.rand(tokens, n_experts, generator=generator).topk(top_k).indices
    count = tokens * top_k
    x, y, h, slope = (
        torch.randn(size, generator=generator).to(dtype)
        for size in ((tokens, d), (count, d), (count, 2 * f), (count, f))
    )
    weights = torch.rand(tokens, top_k, generator=generator)

    def outputs(*values: Tensor) -> list[Tensor]:
        x, y, h, slope = values
        token, place, gates, ends = grouped._sorted(x, chosen, weights, n_experts)
        assert (token is None) == kernels.AVAILABLE
        return [
            place,
            gates,
            ends,
            permutation.spread_rows(x, token, place),
            permutation.combine_rows(y, place),
            gated.gated(h, gates, "swiglu"),
            *gated.gated_backward(slope, h, gates, "swiglu"),
        ]

    found = outputs(x, y, h, slope)
    kernels.AVAILABLE = False
    exact = outputs(x.float(), y.float(), h.float(), slope.float())
    kernels.AVAILABLE = True
    names = ("place", "sorted gates", "ends", "spread", "combine", "gate", "d_h", "gate again", "d_gates")
    return {name: error(a, b) for name, a, b in zip(names, found, exact, strict=True)}


def losses(shape: tuple[int, int], dtype: torch.dtype, generator: torch.Generator) -> dict[str, float]:
    """Loss, log Z and slope of logits; the middle row of several is ignored, and leaves neither loss nor slope."""
    n, vocab = shape
    logits = (3 * torch.randn(n, vocab, generator=generator)).to(dtype)
    targets = torch.randint(vocab, (n,), generator=generator)
    if n > 1:
        targets[n // 2] = cross_entropy.IGNORED
    exact = cross_entropy.slope_reference(logits.float(), targets)
    untouched = logits.clone()
    forward = ops.cross_entropy_(untouched, targets, cross_entropy.IGNORED, False)
    both = ops.cross_entropy_(logits, targets, cross_entropy.IGNORED, True)
    assert torch.equal(forward[0], both[0])
    assert not torch.equal(untouched, logits)
    if n > 1:
        assert logits[n // 2].abs().max() == 0
        assert both[0][n // 2] == 0
    away = (both[0] - exact[1]).norm() / exact[2].norm()  # a loss is a difference, and may be near 0
    return {"slope": error(logits, exact[0]), "loss": float(away), "log_z": error(both[1], exact[2])}


def heads(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> dict[str, float]:
    """Queries normalised (not at all, by head, all together) and rotated, with their gradients."""
    batch, length, n_heads, size = shape
    x, slope = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    cos, sin = rotary_table(3, length, size, 1e4, torch.device("cpu"))
    found = {}
    for name, width in (("none", 0), ("head", size), ("full", n_heads * size)):
        weight = 1 + torch.randn(width, generator=generator)

        def outputs(x: Tensor, slope: Tensor, weight: Tensor = weight) -> list[Tensor]:
            leaves = [each.clone().requires_grad_() for each in (x, weight)[: 1 + (weight.numel() > 0)]]
            if kernels.AVAILABLE:
                y = NormalizedRotary.apply(leaves[0], leaves[1] if weight.numel() else None, cos, sin, 1e-5)
            elif not weight.numel():
                y = rotate(leaves[0], cos, sin)
            else:
                apart = (batch, length, n_heads * size // weight.numel(), weight.numel())
                y = rotate(rms_norm(leaves[0].reshape(apart), weight.shape, leaves[1], 1e-5).reshape(shape), cos, sin)
            return [y.detach(), *torch.autograd.grad(y, leaves, slope)]

        by_kernels = outputs(x, slope)
        kernels.AVAILABLE = False
        exact = outputs(x.double(), slope.double(), weight.double())
        kernels.AVAILABLE = True
        for what, a, b in zip(("y", "d_x", "d_weight"), by_kernels, exact, strict=False):
            found[f"{name} {what}"] = error(a, b)
    return found


def main() -> None:
    """All cases in both dtypes."""
    assert kernels.AVAILABLE
    assert kernels.INTERPRETED
    ops._WEIGHT_PARTS = 4  # several rows a program
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for work, shapes in ((rows, SHAPES), (losses, LOGITS), (heads, HEADS)):
            for shape in shapes:
                row = {"case": f"{work.__name__} {shape}", "dtype": str(dtype).removeprefix("torch.")}
                print(json.dumps({**row, "errors": work(shape, dtype, generator)}), flush=True)


if __name__ == "__main__":
    main()
