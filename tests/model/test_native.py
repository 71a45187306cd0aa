"""Every compiled kernel against PyTorch: outputs, gradients, odd sizes, threads; and life without a compiler."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import DISPATCHES, build_model, resolve_dispatch
from moelab.model.feed_forward import activate
from moelab.model.native import load, status, usable
from moelab.model.native.ops import CausalAttention, Experts, Linear, RmsNorm, Rotary, call, linear_cross_entropy
from moelab.model.rotary import rotary_table, rotate

pytestmark = pytest.mark.skipif(load()[0] is None, reason=status())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def assert_same(fast, slow, *inputs: Tensor, tolerance: float = 1e-5) -> None:
    results = []
    for function in (fast, slow):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = function(*leaves)
        weight = torch.linspace(-1, 2, y.numel()).sin().view_as(y)
        results.append([y.detach(), *torch.autograd.grad((y * weight).sum(), leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max().clamp(min=1)))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (7, 33, 5), (100, 48, 300), (97, 16, 513), (12, 130, 64)])
def test_product(m: int, n: int, k: int) -> None:
    a, b, c = random(m, k), random(k, n), torch.empty(m, n)
    call("plain_product", a, b, c, m, n, k)
    torch.testing.assert_close(c, a @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (7, 33, 5), (4, 48, 300), (9, 130, 64)])
def test_product_of_a_decode_step(m: int, n: int, k: int) -> None:
    x, w, y = random(m, k), random(n, k), torch.empty(m, n)
    call("thin_product", x, w, y, m, n, k, 1)
    torch.testing.assert_close(y, x @ w.mT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [1, 6, 32, 100])
def test_rms_norm(width: int) -> None:
    eps = 1e-6
    assert_same(
        lambda x, w: RmsNorm.apply(x, w, eps),
        lambda x, w: F.rms_norm(x, (width,), w, eps),
        random(3, 5, width),
        random(width),
    )


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("size", [2, 6, 16, 34])
def test_rotary(heads: int, size: int) -> None:
    table = rotary_table(0, 5, size, 1e4, torch.device("cpu"))
    x = random(2, 5, heads, size)
    assert_same(lambda x: Rotary.apply(x, None, *table, 0.0), lambda x: rotate(x, *table), x)
    assert_same(
        lambda x, w: Rotary.apply(x, w, *table, 1e-6),
        lambda x, w: rotate(F.rms_norm(x, (size,), w, 1e-6), *table),
        x,
        random(size),
        tolerance=3e-5,
    )


def attention_reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("length", "heads", "kv", "size"), [(1, 1, 1, 2), (7, 4, 2, 6), (50, 2, 1, 16), (130, 3, 3, 40)]
)
def test_attention(length: int, heads: int, kv: int, size: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tensors = (random(2, length, heads, size), random(2, length, kv, size), random(2, length, kv, size, seed=1))
        assert_same(CausalAttention.apply, attention_reference, *tensors)
        far = tuple(20 * t for t in tensors)
        torch.testing.assert_close(CausalAttention.apply(*far), attention_reference(*far), rtol=1e-3, atol=1e-3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("tokens", "width", "hidden"), [(1, 3, 5), (250, 20, 13), (100, 300, 40), (300, 300, 230)])
def test_dense_feed_forward(tokens: int, width: int, hidden: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same(
            lambda x, first, down: Experts.apply(x, first[None], down[None], None, None),
            lambda x, first, down: F.linear(activate(F.linear(x, first), "swiglu"), down),
            random(tokens, width),
            random(2 * hidden, width) / width**0.5,
            random(width, hidden) / hidden**0.5,
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("rows", "n", "k"), [(1, 1, 1), (7, 33, 5), (190, 20, 300), (400, 300, 17)])
def test_linear(rows: int, n: int, k: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same(Linear.apply, F.linear, random(rows, k), random(n, k) / k**0.5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("rows", "vocab", "width"), [(1, 1, 1), (5, 40, 7), (300, 70, 33), (530, 301, 20)])
def test_linear_cross_entropy(rows: int, vocab: int, width: int, threads: int) -> None:
    hidden, weight = random(rows, width), random(vocab, width)
    targets = torch.randint(0, vocab, (rows,), generator=torch.Generator().manual_seed(0))
    targets[rows // 2] = -100
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        losses, log_z, *slopes = linear_cross_entropy(hidden, weight, targets, True)
    finally:
        torch.set_num_threads(before)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    logits = F.linear(*leaves)
    expected = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_z, logits.logsumexp(-1), rtol=1e-5, atol=1e-5)
    for fast, slow in zip(slopes, torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4 * float(slow.abs().max().clamp(min=1)))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("skew", [0.0, 6.0])
def test_experts_on_several_threads(threads: int, skew: float) -> None:
    """Threads share rows evenly, so they begin inside experts, some get none, and one expert may fill them all."""
    scores = torch.rand(401, 7, generator=torch.Generator().manual_seed(1)) - skew * torch.arange(7.0)
    gates, chosen = scores.topk(3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same(
            lambda x, first, down, gates: Experts.apply(x, first, down, chosen, gates),
            lambda x, first, down, gates: DISPATCHES["loop"](x, first, down, chosen, gates, "swiglu"),
            random(401, 24),
            random(7, 26, 24) / 5,
            random(7, 24, 13) / 4,
            gates,
        )
    finally:
        torch.set_num_threads(before)


def test_several_threads_give_the_same_numbers_every_time() -> None:
    chosen = torch.randint(0, 6, (400, 1), generator=torch.Generator().manual_seed(0))
    inputs = (random(400, 16), random(6, 24, 16), random(6, 16, 12), chosen, torch.ones(400, 1))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = Experts.apply(*inputs)
        assert all(torch.equal(Experts.apply(*inputs), first) for _ in range(5))
    finally:
        torch.set_num_threads(before)


def test_nan_is_not_hidden() -> None:
    hidden = torch.tensor([[torch.nan, 0.0], [0.0, 1.0]])
    losses, *_ = linear_cross_entropy(hidden, torch.ones(9, 2), torch.tensor([0, 0]), False)
    assert losses.isnan().tolist() == [True, False]
    q = torch.zeros(1, 2, 1, 8)
    q[0, 1] = torch.nan
    assert CausalAttention.apply(q, torch.ones(1, 2, 1, 8), torch.ones(1, 2, 1, 8))[0, 1].isnan().all()


def test_only_plain_fp32_on_the_cpu_is_usable() -> None:
    assert usable(torch.ones(2))
    assert not usable(torch.ones(2, dtype=torch.float64))
    assert not usable(torch.ones(2, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not usable(torch.ones(2))


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"MOELAB_NATIVE": "0"}, "switched off"),
        ({"CC": "/bin/false"}, "did not compile"),
        ({"CC": "/nowhere/cc"}, "did not compile"),
    ],
)
def test_without_a_compiler_pytorch_runs_instead(
    environment: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = load.__wrapped__()
    assert found[0] is None
    assert reason in found[1]
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 8}
    config = ModelConfig.parse({"vocab_size": 32, "d_model": 16, "n_layers": 2, "n_heads": 2, "moe": moe})
    ids = torch.arange(24).view(2, 12)
    with_kernels = build_model(config, dispatch="native").loss(ids, ids).total.item()
    monkeypatch.setattr("moelab.model.native.load", lambda: found)
    monkeypatch.setattr("moelab.model.dispatch.load", lambda: found)
    assert resolve_dispatch(config, "cpu", torch.float32) == "sorted"
    without = build_model(config, dispatch="native").loss(ids, ids)
    without.total.backward()
    assert without.total.item() == pytest.approx(with_kernels, rel=1e-5)
