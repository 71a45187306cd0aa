"""The machine that a process runs on."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""glibc's numbers of what `mallopt` sets."""
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 2**26}
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17}
"""What glibc comes to by itself in a process with large buffers."""


def machine_memory() -> float | None:
    """Bytes of memory of this machine; None where the system does not report it."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return None


def usable_cores() -> int:
    """The processor cores that this process may use: those of its affinity where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within this block the C library keeps what is freed, where that can be set (glibc); then it gives it back.

    By default a buffer above 32 MB goes back to the system when it is freed, and the next step's comes in fresh
    zeroed pages: up to a tenth of a step's time, and a fifth of a plan's (docs/benchmarks.md).
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
