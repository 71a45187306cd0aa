"""Memory of a run: freed buffers kept for the next step, and the peak: a CPU process's or a GPU allocator's."""

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""glibc's numbers of what `mallopt` sets."""
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 2**26}
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17}
"""What glibc comes to by itself in a process with large buffers."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within this block the C library keeps what is freed, where that can be set (glibc); then it gives it back.

    By default a buffer above 32 MB goes back to the system when it is freed, and the next step's comes in fresh
    zeroed pages: up to a tenth of a step's time (docs/benchmarks.md, training step).
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    try:
        for option, value in _KEEP.items():
            library.mallopt(option, value)
        yield
    finally:
        for option, value in _USUAL.items():
            library.mallopt(option, value)
        library.malloc_trim(0)


def reset_peak_memory() -> None:
    """Start a new peak. Where the system cannot (not Linux), the CPU peak is the process's since its start."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_memory_bytes(device: str) -> int:
    """The peak since `reset_peak_memory`, in bytes."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
