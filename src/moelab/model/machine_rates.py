"""What this machine reaches: memory bandwidth, matrix products by size and precision, the cost of a launch.

It runs in well under a minute and gives a hardware file whose calibration rests on these numbers alone.
"""

import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from moelab.machine import machine_memory, usable_cores
from moelab.serving import Calibration, Coefficients, Hardware

SECONDS = 0.4
"""Time spent on each measurement; the best of its repeats counts."""
LARGE, ROWS = 1024, (1, 8, 64, 512)
"""Width of the products, and their numbers of rows: from one decoded token to a prompt."""
STREAM = 2**26
"""Bytes that are copied to measure memory, beyond caches."""


def measure_machine(
    device: str | None = None, seconds: float = SECONDS, width: int = LARGE
) -> tuple[Hardware, dict[str, float]]:
    """Measure CUDA's first device, or the processor, with the threads that torch uses; `width` is the products'.

    Returns:
        The machine as a hardware entry without a price, and the measured numbers: bytes per second, FLOPs per second of
        products by precision and rows, and seconds of a launch.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rates = {"copy_bytes_per_second": _copy(place, seconds), "launch_seconds": _launch(place, seconds)}
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for rows in ROWS:
            rates[f"{name}_flops_{rows}_rows"] = _product(place, dtype, rows, width, seconds)
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
    hardware = Hardware(
        name=f"{name}, {usable_cores()} cores" if place.type == "cpu" else name,
        source=f"measured by moelab calibrate, torch {torch.__version__}, {torch.get_num_threads()} threads",
        bf16=best,
        memory=memory or 8e9,
        bandwidth=bandwidth,
        link=bandwidth,
        network=bandwidth,
        node=1,
        price=None,
        calibration=Calibration(id="this machine", coefficients=coefficients, source="moelab calibrate"),
    )
    return hardware, rates


def _best(run: Callable[[], object], place: torch.device, seconds: float) -> float:
    """The least seconds of one call, over as many repeats as fit the time."""
    run()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        run()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        least = min(least, time.perf_counter() - began)
    return least


def _copy(place: torch.device, seconds: float) -> float:
    source = torch.ones(STREAM // 4, device=place)
    target = torch.empty_like(source)
    # A copy reads and writes every byte.
    return 2 * STREAM / _best(lambda: target.copy_(source), place, seconds)


def _launch(place: torch.device, seconds: float) -> float:
    value: Tensor = torch.ones(16, device=place)
    return _best(lambda: value.add_(1.0), place, seconds)


def _product(place: torch.device, dtype: torch.dtype, rows: int, width: int, seconds: float) -> float:
    """FLOPs per second of (rows, width) by (width, 4 width), weights stored by outputs as in layers, out of as many
    matrices as memory's caches do not hold."""
    weights = [torch.ones(4 * width, width, device=place, dtype=dtype) for _ in range(8)]
    x = torch.ones(rows, width, device=place, dtype=dtype)

    def run() -> None:
        for weight in weights:
            torch.nn.functional.linear(x, weight)

    return len(weights) * 2.0 * rows * width * 4 * width / _best(run, place, seconds)
