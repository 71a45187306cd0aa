"""Tokens per second of a whole training step of moelab: forward, backward, clipping, AdamW. One compared shape."""

import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

from gpu_sections.common import Bench, has, model_config, our_model, peer_model, text, without_kernels
from moelab.architecture import ModelConfig, count_flops
from moelab.runs import TrainConfig
from moelab.training import Optimizer

LENGTH = 2048
VARIANTS = {"dense": ("compiled", "plain"), "moe": ("compiled", "plain", "operators")}


def run(bench: Bench, kind: str) -> None:
    """Every way of running the step."""
    config = model_config(kind, bench.dry)
    for how in VARIANTS[kind]:
        operators = without_kernels() if "operators" in how else nullcontext()
        with bench.guarded("step", model=kind, who="moelab", how=how), operators:
            step = ours(bench, config, rows(bench), "compiled" in how)
            report(bench, kind, "moelab", how, config, step, rows(bench))
            if how != "operators":
                profile(bench, kind, how, step)
            del step


def rows(bench: Bench) -> int:
    """Sequences of a batch of 32,768 tokens."""
    return bench.pick(16, 2)


def length(bench: Bench) -> int:
    """Tokens of a sequence."""
    return bench.pick(LENGTH, 32)


def ours(bench: Bench, config: ModelConfig, n_rows: int, compiled: bool) -> Callable[[], torch.Tensor]:
    """A step of moelab, as the trainer takes it; returns the loss on the device."""
    model = our_model(bench, config)
    if compiled:
        for layer in model.model.layers:
            layer.compile(backend=bench.backend)
    size = length(bench)
    train = TrainConfig(tokens=n_rows * size, seq_len=size, batch_tokens=n_rows * size, learning_rate=1e-4)
    optimizer = Optimizer(model, train)
    x, y = text(bench, config.vocab_size, n_rows, size)

    def step() -> torch.Tensor:
        with bench.autocast():
            output = model.loss(x, y)
        output.total.backward()
        optimizer.step(1e-4)
        return output.loss.detach()

    return step


def theirs(bench: Bench, config: ModelConfig, n_rows: int, how: str) -> Callable[[], torch.Tensor]:
    """The same with the transformers class of the same shape."""
    with torch.device(bench.device):
        model = peer_model(config).train()
    if how == "bf16 experts":
        for layer in model.model.layers:
            layer.mlp.experts = HalvedExperts(layer.mlp.experts)
    if how == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama(model=model)
    run = torch.compile(model, backend=bench.backend) if how == "compiled" else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    x, y = text(bench, config.vocab_size, n_rows, length(bench))

    def step() -> torch.Tensor:
        with bench.autocast():
            if how == "liger":  # its loss never makes the logits; it shifts the labels by itself
                loss = run(input_ids=x, labels=x).loss
            else:
                logits = run(input_ids=x).logits
                loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


class HalvedExperts(torch.nn.Module):
    """Under autocast transformers' `grouped_mm` leaves experts in fp32, where their weights are: here weights and rows
    are cast to bf16 at each pass, and gradients come back in fp32."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, chosen: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """As the experts themselves."""
        weights = {name: each.bfloat16() for name, each in self.inner.named_parameters()}
        with torch.autocast(x.device.type, enabled=False):
            return torch.func.functional_call(self.inner, weights, (x.bfloat16(), chosen, gates)).to(x.dtype)


def report(
    bench: Bench, kind: str, who: str, how: str, config: ModelConfig, step: Callable[[], torch.Tensor], n_rows: int
) -> None:
    """Tokens per second over several steps, FLOPs by the full square, and the peak of memory."""
    began = time.perf_counter()
    losses = [float(step()) for _ in range(bench.pick(3, 1))]
    first = time.perf_counter() - began
    if not bench.dry:
        torch.cuda.reset_peak_memory_stats()
    repeats = bench.pick(10, 1)
    bench.wait()
    began = time.perf_counter()
    for _ in range(repeats):
        loss = step()
    bench.wait()
    seconds = (time.perf_counter() - began) / repeats
    peak = 0 if bench.dry else torch.cuda.max_memory_allocated()
    tokens = n_rows * length(bench)
    flops = float(count_flops(config, length(bench)).train) * tokens
    speed = {"tokens_per_second": tokens / seconds, "tflops": flops / seconds / 1e12, "ms": seconds * 1e3}
    ends = {"first_loss": losses[0], "last_loss": float(loss), "warm_seconds": first, "ok": float(loss) < losses[0]}
    bench.emit("step", model=kind, who=who, how=how, tokens=tokens, **speed, peak_gb=peak / 1e9, **ends)


def profile(bench: Bench, kind: str, how: str, step: Callable[[], torch.Tensor]) -> None:
    """The kernels of one step that take longest, and how long the device had nothing to do."""
    if bench.dry:
        return
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as found:
        step()
        torch.cuda.synchronize()
    events = [(e.key, e.self_device_time_total / 1e3, e.count) for e in found.key_averages()]
    events = sorted(((k, t, n) for k, t, n in events if t > 0), key=lambda each: -each[1])
    top = [[name[:90], round(ms, 2), count] for name, ms, count in events[:24]]
    busy = sum(ms for _, ms, _ in events)
    bench.emit("profile", model=kind, how=how, busy_ms=busy, launches=sum(n for *_, n in events), top=top)


def peers(bench: Bench, kind: str) -> None:
    """transformers: dense plain, with liger-kernel, compiled; MoE with half the batch (it needs the memory),
    as it comes and with experts in bf16."""
    if not has("transformers"):
        bench.emit("not run", model=kind, who="transformers", reason="transformers is not installed")
        return
    config = model_config(kind, bench.dry)
    ways = ("bf16 experts", "plain") if kind == "moe" else ("compiled", "liger", "plain")
    for how in ways:
        if how == "liger" and (bench.dry or not has("liger_kernel")):
            continue
        n_rows = rows(bench) // 2 if kind == "moe" else rows(bench)
        with bench.guarded("step", model=kind, who="transformers", how=how):
            step = theirs(bench, config, n_rows, how)
            report(bench, kind, "transformers", how, config, step, n_rows)
            del step
