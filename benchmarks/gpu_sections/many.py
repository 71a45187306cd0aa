"""Many small runs on one device: tokens per second of processes side by side, and of CUDA graphs on streams of one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from gpu_sections.common import Bench, text
from moelab.architecture import ModelConfig
from moelab.model import build_model

MOE = {"n_experts": 8, "top_k": 2, "d_expert": 64, "balance_loss": 0.01}
SIZES = {"vocab_size": 512, "d_model": 64, "n_layers": 2, "n_heads": 2, "d_ff": 192}


def run(bench: Bench) -> None:
    """One run and graphs on streams, dense and MoE; then processes side by side."""
    for kind in ("dense", "moe"):
        with bench.guarded("many", model=kind, how="one"):
            _emit(bench, kind, "one", 1, speed(bench, kind, bench.pick(100, 2)))
        for count in bench.pick((16,), (2,)):
            with bench.guarded("many", model=kind, how="graphs on streams", runs=count):
                _emit(bench, kind, "graphs on streams", count, graphs(bench, kind, count))
    count = bench.pick(8, 2)
    with bench.guarded("many", model="moe", how="processes", runs=count):
        _emit(bench, "moe", "processes", count, processes(bench, "moe", count))


def _emit(bench: Bench, kind: str, how: str, runs: int, tokens_per_second: float) -> None:
    bench.emit("many", model=kind, how=how, runs=runs, tokens_per_second=tokens_per_second)


def trainer(bench: Bench, kind: str, seed: int = 0) -> Callable[[], None]:
    """A step of a small run that never waits for the device."""
    config = ModelConfig.parse({**SIZES, "moe": MOE if kind == "moe" else None})
    model = build_model(config, seed=seed, dispatch="grouped" if config.moe else "none").to(bench.device)
    how: dict[str, Any] = {"capturable": True} if not bench.dry else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True, **how)
    x, y = text(bench, config.vocab_size, *shape(bench))

    def step() -> None:
        with bench.autocast():
            output = model.loss(x, y)
        output.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def tokens(bench: Bench) -> int:
    """Tokens of a step."""
    rows, length = shape(bench)
    return rows * length


def shape(bench: Bench) -> tuple[int, int]:
    """Rows and length of a batch."""
    return bench.pick((16, 128), (2, 16))


def speed(bench: Bench, kind: str, steps: int) -> float:
    """Tokens per second of one run in this process."""
    step = trainer(bench, kind)
    step(), step()
    bench.wait()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    bench.wait()
    return steps * tokens(bench) / (time.perf_counter() - began)


def processes(bench: Bench, kind: str, count: int) -> float:
    """The same in several processes at once; the sum of their speeds."""
    code = "import sys; from gpu_sections.many import child; child(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", code, kind, "dry" if bench.dry else "cuda", str(time.time() + bench.pick(14, 1))]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment}
    started = [subprocess.Popen(words, **pipes) for _ in range(count)]
    outputs = [process.communicate(timeout=120)[0] for process in started]
    return float(sum(json.loads(output.splitlines()[-1]) for output in outputs))


def child(kind: str, where: str, starts: str) -> None:
    """In each of the processes: begin at the agreed moment, so that all run at once."""
    bench = Bench.open(where == "dry")
    step = trainer(bench, kind)
    step(), step()
    bench.wait()
    time.sleep(max(0.0, float(starts) - time.time()))
    began, done, seconds = time.perf_counter(), 0, bench.pick(3.0, 0.3)
    while time.perf_counter() - began < seconds:
        step()
        bench.wait()
        done += 1
    print(json.dumps(done * tokens(bench) / (time.perf_counter() - began)))


def graphs(bench: Bench, kind: str, count: int) -> float:
    """Several runs in one process: each step captured once as a CUDA graph and replayed on a stream of its own."""
    steps = [trainer(bench, kind, seed) for seed in range(count)]
    if bench.dry:
        return sum(_timed(bench, step) for step in steps)
    streams, captured = [torch.cuda.Stream() for _ in steps], []
    for step, stream in zip(steps, streams, strict=True):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            step()
        captured.append(graph)
    repeats = 100

    def replay() -> None:
        for graph, stream in zip(captured, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()

    replay()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        replay()
    torch.cuda.synchronize()
    return repeats * count * tokens(bench) / (time.perf_counter() - began)


def _timed(bench: Bench, step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return tokens(bench) / (time.perf_counter() - began)
