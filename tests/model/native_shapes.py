"""Every compiled kernel on odd shapes, forward and backward, beside PyTorch. Run by test_native_memory.py with the
address sanitizer: `python native_shapes.py LIBRARY SEED ROUNDS`.

T tokens, H query heads of size A, E experts of width F.
"""

import ctypes
import random
import sys

import torch
import torch.nn.functional as F

from moelab.architecture import ModelConfig
from moelab.model import build_model, native
from moelab.model.dispatch.loop import dispatch_loop
from moelab.model.generate import generate
from moelab.model.native import build, ops

SIZES = (1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 47, 48, 49, 64, 97, 130)
LONG = (*SIZES, 179, 180, 181, 257, 300)


def use(path: str) -> None:
    """Let every kernel call go to this library."""
    library = ctypes.CDLL(path)
    for name, arguments in build.SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    ops.load = native.load = lambda: (library, path)


def same(ours: torch.Tensor, theirs: torch.Tensor, leaves: list[torch.Tensor]) -> None:
    """Outputs and gradients agree."""
    slope = torch.randn_like(ours)
    pairs = [torch.autograd.grad(y, leaves, slope) for y in (ours, theirs)]
    for a, b in zip((ours, *pairs[0]), (theirs, *pairs[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


def leaf(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape) * 0.3).requires_grad_()


def attention(draw: random.Random) -> None:
    batch, kv, a = draw.randint(1, 2), draw.randint(1, 2), draw.choice(SIZES)
    length, heads = draw.choice(LONG), kv * draw.randint(1, 3)
    q, k, v = leaf(batch, length, heads, a), leaf(batch, length, kv, a), leaf(batch, length, kv, a)
    turned = [x.transpose(1, 2) for x in (q, k, v)]
    theirs = F.scaled_dot_product_attention(*turned, is_causal=True, enable_gqa=True).transpose(1, 2)
    same(ops.CausalAttention.apply(q, k, v), theirs, [q, k, v])


def products(draw: random.Random) -> None:
    rows, n, k = (draw.choice(LONG) for _ in range(3))
    x, weight, norm = leaf(rows, k), leaf(n, k), leaf(k)
    same(ops.Linear.apply(x, weight), F.linear(x, weight), [x, weight])
    same(ops.RmsNorm.apply(x, norm, 1e-5), F.rms_norm(x, (k,), norm, 1e-5), [x, norm])
    targets = torch.randint(-1, n, (rows,))
    loss, *_ = ops.linear_cross_entropy(x.detach(), weight.detach(), targets, draw.random() < 0.7)
    theirs = F.cross_entropy(F.linear(x, weight), targets.clamp(min=0), reduction="none") * (targets >= 0)
    torch.testing.assert_close(loss, theirs.detach(), rtol=1e-2, atol=1e-2)


def experts(draw: random.Random) -> None:
    tokens, d, f, n_experts = draw.choice(LONG), draw.choice(SIZES), draw.choice(SIZES), draw.choice((1, 2, 3, 8, 16))
    x, first, down = leaf(tokens, d), leaf(n_experts, 2 * f, d), leaf(n_experts, d, f)
    chosen = torch.rand(tokens, n_experts).topk(draw.randint(1, n_experts)).indices
    if draw.random() < 0.3:
        chosen = torch.full_like(chosen, draw.randrange(n_experts))
    gates = torch.rand(chosen.shape).requires_grad_()
    ours = ops.Experts.apply(x, first, down, chosen, gates)
    same(ours, dispatch_loop(x, first, down, chosen, gates, "swiglu"), [x, first, down, gates])


def decoding(draw: random.Random) -> None:
    kv, experts = draw.randint(1, 2), draw.choice((2, 3, 8))
    moe = {"n_experts": experts, "top_k": draw.randint(2, experts), "d_expert": draw.choice(SIZES[2:])}
    shape = {
        "vocab_size": draw.choice(LONG[2:]),
        "d_model": draw.choice((4, 12, 32, 40)),
        "n_layers": draw.randint(1, 2),
        "n_heads": kv * draw.randint(1, 2),
        "n_kv_heads": kv,
        "head_dim": draw.choice((2, 4, 8, 16, 32)),
        "qk_norm": draw.choice(("none", "head", "full")),
        **({"moe": moe} if draw.random() < 0.6 else {"d_ff": draw.choice(SIZES)}),
    }
    model = build_model(ModelConfig.parse(shape), dispatch="native" if "moe" in shape else "none").eval()
    prompts = [[1] * draw.randint(1, 9) for _ in range(draw.choice((1, 2, 3, 5, 17)))]
    ours = generate(model, prompts, max_new_tokens=4, temperature=0)
    assert [len(row) for row in ours] == [4] * len(prompts)


if __name__ == "__main__":
    use(sys.argv[1])
    draw = random.Random(int(sys.argv[2]))
    torch.manual_seed(int(sys.argv[2]))
    for _ in range(int(sys.argv[3])):
        torch.set_num_threads(draw.randint(1, 3))
        for each in (attention, products, experts, decoding):
            each(draw)
    print("held")
