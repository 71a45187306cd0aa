"""The head and its loss: time, memory and error of the weight's gradient, beside plain PyTorch and liger-kernel."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_sections.common import Bench, error, has, within, without_kernels
from moelab.model import cross_entropy
from moelab.model.cross_entropy import linear_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def run(bench: Bench) -> None:
    """Two vocabularies; for the larger one chunks of several sizes."""
    for n, d, vocab in bench.pick(((16384, 1024, 50304), (16384, 1024, 8192)), ((96, 16, 80),)):
        hidden = bench.random(n, d, dtype=torch.bfloat16).float()
        weight = bench.random(vocab, d, seed=1, dtype=torch.bfloat16, scale=0.05).float()
        targets = torch.randint(vocab, (n,), generator=torch.Generator().manual_seed(0)).to(bench.device)
        exact = _exact(hidden, weight, targets, bench.pick(2048, 32))
        problem = (hidden.requires_grad_(), weight.requires_grad_(), targets)
        shape = {"tokens": n, "width": d, "vocabulary": vocab}
        for power in bench.pick((24, 25, 26, 27, 28) if vocab > 20000 else (27,), (8, 10)):
            with bench.guarded("cross-entropy", how=f"kernels, chunk 2^{power}"), _chunk(2**power):
                measure(bench, f"kernels, chunk 2^{power}", ours, problem, exact, shape)
        with bench.guarded("cross-entropy", how="operators"), _chunk(bench.pick(2**26, 2**9)), without_kernels():
            measure(bench, "operators, chunk 2^26", ours, problem, exact, shape)
        with bench.guarded("cross-entropy", how="plain"):
            measure(bench, "plain", plain, problem, exact, shape)
        if has("liger_kernel") and not bench.dry:
            with bench.guarded("cross-entropy", how="liger"):
                measure(bench, "liger", liger, problem, exact, shape)


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """moelab's."""
    return linear_cross_entropy(hidden, weight, targets)[0]


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """All logits at once."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets)


def liger(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """liger-kernel's fused linear cross-entropy on what autocast would hand it."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    value = LigerFusedLinearCrossEntropyLoss()(weight.bfloat16(), hidden.bfloat16(), targets)
    return value[0] if isinstance(value, tuple) else value


def measure(
    bench: Bench, how: str, loss: Loss, problem: tuple[Tensor, Tensor, Tensor], exact: Tensor, shape: dict[str, int]
) -> None:
    """Forward and backward under autocast."""
    hidden, weight, targets = problem
    found: list[Tensor] = []

    def step() -> None:
        found.clear()
        with bench.autocast():
            value = loss(hidden, weight, targets)
        found.extend(torch.autograd.grad(value, (hidden, weight)))

    seconds = bench.seconds(step)
    wrong = error(found[1], exact)
    found.clear()
    peak = bench.peak_bytes(step)
    flops = 6.0 * shape["tokens"] * shape["width"] * shape["vocabulary"]
    row = {"ms": seconds * 1e3, "tflops": flops / seconds / 1e12, "peak_mb": peak / 1e6}
    bench.emit("cross-entropy", how=how, **shape, **row, **within({"d_weight_error": wrong}, 2e-2))


def _exact(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
    """The weight's gradient in fp32 from fp32 products, added up in fp64."""
    total = torch.zeros_like(weight, dtype=torch.float64)
    for part in range(0, hidden.shape[0], rows):
        logits = hidden[part : part + rows] @ weight.t()
        slope = logits.softmax(-1)
        slope[torch.arange(len(slope), device=slope.device), targets[part : part + rows]] -= 1
        total += slope.t() @ hidden[part : part + rows]
    return total / hidden.shape[0]


class _chunk:
    """Within this block a chunk has so many logits."""

    def __init__(self, elements: int) -> None:
        self.elements = elements

    def __enter__(self) -> None:
        self.before = cross_entropy.chunk_elements
        cross_entropy.chunk_elements = lambda device: self.elements

    def __exit__(self, *_: object) -> None:
        cross_entropy.chunk_elements = self.before
