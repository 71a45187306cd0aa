"""What the experts of a layer keep for the backward pass does not grow with granularity: K F is constant."""

import pytest
import torch
from torch import Tensor

from moelab.model.dispatch.grouped import dispatch_grouped

TOKENS, WIDTH, ACTIVE = 256, 64, 512


def kept_bytes(top_k: int) -> int:
    """Bytes kept beside inputs and weights, of `top_k` of eight times as many experts."""
    n_experts, f = 8 * top_k, ACTIVE // top_k
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16().requires_grad_()

    scores, chosen = torch.randn(TOKENS, n_experts, generator=generator).topk(top_k)
    gates = scores.softmax(-1).requires_grad_()
    inputs = [random(TOKENS, WIDTH), random(n_experts, 2 * f, WIDTH), random(n_experts, WIDTH, f)]
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = dispatch_grouped(*inputs, chosen, gates, "swiglu")
    for tensor in (*inputs, gates, chosen):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    assert out.shape == (TOKENS, WIDTH)
    return sum(kept.values())


def test_finer_experts_keep_no_more() -> None:
    sizes = {top_k: kept_bytes(top_k) for top_k in (2, 4, 8, 16)}
    assert sizes[16] == pytest.approx(sizes[2], rel=0.15)
    assert sizes[2] < 1.1 * TOKENS * 2 * ACTIVE * 2  # gate and up in bf16, and indices
