"""What the machine is: versions, the device, its two ceilings (a large bf16 product, a copy)."""

import platform

import torch

from gpu_sections.common import Bench, has
from moelab.model import cross_entropy, kernels


def run(bench: Bench) -> None:
    """Versions, then the ceilings."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "transformers", "liger_kernel"):
        versions[package] = _version(package)
    name = platform.processor() if bench.dry else torch.cuda.get_device_name()
    memory = 0 if bench.dry else torch.cuda.get_device_properties(0).total_memory
    chunk = cross_entropy.chunk_elements(torch.device(bench.device))
    row = {"device": name, "memory_bytes": memory, "kernels": kernels.AVAILABLE, "chunk_elements": chunk}
    bench.emit("machine", **row, **versions, ok=bench.dry or kernels.AVAILABLE)  # else `kernels` are operators
    size = bench.pick(8192, 128)
    a, b = (bench.random(size, size, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    seconds = bench.seconds(lambda: a @ b, repeats=10)
    bench.emit("bf16 product", size=size, tflops=2 * size**3 / seconds / 1e12)
    source = bench.random(bench.pick(2**29, 2**10), dtype=torch.bfloat16)
    target = torch.empty_like(source)
    seconds = bench.seconds(lambda: target.copy_(source), repeats=10)
    bench.emit("copy", gigabytes_per_second=2 * source.numel() * 2 / seconds / 1e9)


def _version(package: str) -> str | None:
    if not has(package):
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return "unknown"
