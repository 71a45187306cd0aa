"""Memory of a run: freed buffers kept for the next step, and the peak: a CPU process's or a GPU allocator's."""

import ctypes
import resource
import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""glibc's names of what `mallopt` sets."""


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for the rest of the process, where it can be told so (glibc).

    By default a buffer above 32 MB goes back to the system when it is freed, and the next step's comes in fresh
    zeroed pages: a tenth of a step's time (docs/benchmarks.md, training step).
    """
    tell = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if tell is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26)):
            tell(option, value)


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
