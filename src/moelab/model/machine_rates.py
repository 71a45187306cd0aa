"""What this machine reaches: memory bandwidth, matrix products by rows and precision, the cost of a launch.

Products are those of moelab's own engine: dense matrices, and a layer's experts with so many rows each. It runs in
well under a minute and gives a hardware file whose calibration rests on these numbers alone.
"""

import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.machine import machine_memory, usable_cores
from moelab.model.dispatch import DISPATCHES, resolve_dispatch
from moelab.model.linear import ENOUGH_ROWS, Linear
from moelab.model.native import usable
from moelab.model.native.ops import call
from moelab.serving import Calibration, Coefficients, Hardware
from moelab.serving.products import ExpertRates, ProductRates

SECONDS = 0.2
"""Time spent on each measurement; the best of its repeats counts."""
LARGE, ROWS = 1024, (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Width of the dense products, and numbers of rows: from one decoded token to a prompt."""
MATRICES, EXPERTS = 8, 32
"""Matrices and experts of half the width that are cycled through: more bytes than a processor's caches hold."""
WIDTHS = (1, 4)
"""Further widths of experts that are measured, in quarters of the dense products'; half of it comes first."""
STREAM = 2**26
"""Bytes that are copied to measure memory, beyond caches."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_machine(
    device: str | None = None, seconds: float = SECONDS, width: int = LARGE
) -> tuple[Hardware, dict[str, float]]:
    """Measure CUDA's first device, or the processor, with the threads that torch uses; `width` is the products'.

    Returns:
        The machine as a hardware entry without a price, and the measured numbers: bytes per second, FLOPs per second of
        dense products and of experts by precision and rows, and seconds of a launch.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rates = {"copy_bytes_per_second": _copy(place, seconds), "launch_seconds": measure_launch(place, seconds)}
    products = {name: measure_products(place, dtype, seconds, width) for name, dtype in DTYPES.items()}
    for name, found in products.items():
        rates |= {f"{name}_flops_{rows}_rows": rate for rows, rate in zip(found.rows, found.dense, strict=True)}
        rates |= {f"{name}_expert_flops_{n}_rows": rate for n, rate in zip(found.rows, found.experts, strict=True)}
    return machine_of(place, rates, products), rates


def measure_products(place: torch.device, dtype: torch.dtype, seconds: float, width: int = LARGE) -> ProductRates:
    """FLOPs per second of dense matrices and of experts at each number of rows."""
    thin, half = dtype == torch.float32 and usable(torch.empty(1, dtype=dtype, device=place)), width // 2
    with torch.no_grad():
        few = tuple(_thin(min(rows, ENOUGH_ROWS), half, seconds) for rows in ROWS) if thin else None
        dense = [_thin(rows, width, seconds) for rows in ROWS if thin and rows < ENOUGH_ROWS]
        dense += [_dense(place, dtype, rows, width, seconds) for rows in ROWS[len(dense) :]]
        experts = tuple(_experts(place, dtype, rows, half, width, seconds) for rows in ROWS)
        others = tuple(_other_width(place, dtype, quarters * width // 4, width, thin, seconds) for quarters in WIDTHS)
    return ProductRates(
        rows=ROWS,
        dense=tuple(dense),
        experts=experts,
        few=ENOUGH_ROWS - 1 if thin else 0,
        few_experts=few,
        expert_width=half,
        other_widths=others,
    )


def _other_width(
    place: torch.device, dtype: torch.dtype, own: int, width: int, thin: bool, seconds: float
) -> ExpertRates:
    """The rates of experts of another width."""
    few = tuple(_thin(min(rows, ENOUGH_ROWS), own, seconds) for rows in ROWS) if thin else None
    experts = tuple(_experts(place, dtype, rows, own, width, seconds) for rows in ROWS)
    return ExpertRates(width=own, experts=experts, few_experts=few)


def machine_of(place: torch.device, rates: dict[str, float], products: dict[str, ProductRates]) -> Hardware:
    """The machine as a hardware entry, from what was measured."""
    best = max(rate for name, rate in rates.items() if "_flops_" in name)
    # One row reads the whole matrix: what a decoded token reaches of the memory's bandwidth.
    reading = max(rates["fp32_flops_1_rows"] * 2.0, rates["bf16_flops_1_rows"])
    bandwidth = max(rates["copy_bytes_per_second"], reading)
    share = min(1.0, reading / bandwidth)
    some = max(rates["fp32_flops_64_rows"], rates["bf16_flops_64_rows"]) / best
    coefficients = Coefficients(
        matmul=1.0,
        experts=max(min(some, 1.0), 0.01),
        padding=0.0,
        bandwidth=share,
        cache=share,
        latent_cache=share,
        attention=max(min(some, 1.0), 0.01),
        link=1.0,
        kernel=min(rates["launch_seconds"], 1.0),
        step=0.0,
        collective=0.0,
        request=0.0,
        passes=10.0,
        imbalance=1.0,
        max_batch=512,
        reserved=1.0,
    )
    memory = float(torch.cuda.get_device_properties(place).total_memory) if place.type == "cuda" else machine_memory()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.processor() or platform.machine()
    return Hardware(
        name=f"{name}, {usable_cores()} cores" if place.type == "cpu" else name,
        source=f"measured by moelab calibrate, torch {torch.__version__}, {torch.get_num_threads()} threads",
        bf16=best,
        memory=memory or 8e9,
        bandwidth=bandwidth,
        link=bandwidth,
        network=bandwidth,
        node=1,
        price=None,
        calibration=Calibration(
            id="this machine", coefficients=coefficients, source="moelab calibrate", products=products
        ),
    )


def best_seconds(run: Callable[[], object], seconds: float, place: torch.device | None = None) -> float:
    """The least seconds of one call, over as many repeats as fit the time: of the processor where one thread computes,
    since other work on the machine does not count there, else of the clock."""
    cuda = place is not None and place.type == "cuda"
    clock = time.process_time if not cuda and torch.get_num_threads() == 1 else time.perf_counter
    run()
    least, end = float("inf"), time.perf_counter() + seconds
    while True:
        began = clock()
        run()
        if cuda:
            torch.cuda.synchronize(place)
        least = min(least, clock() - began)
        if time.perf_counter() >= end:
            return max(least, 1e-9)


def _copy(place: torch.device, seconds: float) -> float:
    source = torch.ones(STREAM // 4, device=place)
    target = torch.empty_like(source)
    # A copy reads and writes every byte.
    return 2 * STREAM / best_seconds(lambda: target.copy_(source), seconds, place)


def measure_launch(place: torch.device, seconds: float) -> float:
    """Seconds of PyTorch's smallest operation."""
    value: Tensor = torch.ones(16, device=place)
    return best_seconds(lambda: value.add_(1.0), seconds, place)


def _dense(place: torch.device, dtype: torch.dtype, rows: int, width: int, seconds: float) -> float:
    """FLOPs per second of (rows, width) by (width, 4 width), weights stored by outputs as in layers: half the matrices
    as in attention, half as in feed-forwards."""
    count = max(MATRICES * 32 // max(rows, 32), 2)
    kinds = [Linear if i % 2 else nn.Linear for i in range(count)]
    layers = [kind(width, 4 * width, bias=False, device=place, dtype=dtype) for kind in kinds]
    x = torch.ones(rows, width, device=place, dtype=dtype)
    spent = best_seconds(lambda: [layer(x) for layer in layers], seconds, place)
    return count * 2.0 * rows * width * 4 * width / spent


def _thin(rows: int, width: int, seconds: float) -> float:
    """FLOPs per second of a compiled decode step's product, (rows, width) by (width, 2 width)."""
    count = max(2 * MATRICES * LARGE // width, 2 * MATRICES * LARGE**2 // (4 * width**2))
    weights = [torch.full((2 * width, width), 0.01) for _ in range(count)]
    x, y, threads = torch.ones(rows, width), torch.empty(rows, 2 * width), torch.get_num_threads()

    def run() -> None:
        for weight in weights:
            call("thin_product", x, weight, y, rows, 2 * width, width, threads)

    return count * 2.0 * rows * width * 2 * width / best_seconds(run, seconds)


def _experts(place: torch.device, dtype: torch.dtype, rows: int, width: int, large: int, seconds: float) -> float:
    """FLOPs per second of experts of `width` by `width`, each with so many rows, by the dispatch of this machine; as
    many as have the bytes of EXPERTS of half the width `large`."""
    count = max(EXPERTS * large**2 // (4 * width**2) * 64 // max(rows, 64), 2)
    moe = {"n_experts": count, "top_k": 1, "d_expert": width, "normalize_gates": False}
    config = ModelConfig.parse(
        {"vocab_size": 256, "d_model": width, "n_layers": 1, "n_heads": 1, "n_kv_heads": 1, "head_dim": 64, "moe": moe}
    )
    dispatch = DISPATCHES[resolve_dispatch(config, place, dtype)]
    first = torch.full((count, 2 * width, width), 0.01, device=place, dtype=dtype)
    down = torch.full((count, width, width), 0.01, device=place, dtype=dtype)
    x = torch.ones(rows * count, width, device=place, dtype=dtype)
    chosen = torch.arange(rows * count, device=place)[:, None] % count
    gates = torch.ones(rows * count, 1, device=place, dtype=dtype)
    spent = best_seconds(lambda: dispatch(x, first, down, chosen, gates, "swiglu"), seconds, place)
    return count * 2.0 * rows * 3 * width * width / spent
